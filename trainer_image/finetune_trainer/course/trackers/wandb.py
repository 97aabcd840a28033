"""Weights & Biases through its own library, whose protocol is not public.

The run's id is the job's uid, so that all attempts share it without knowing of each other. Only
curves and parameters are sent: no code, console, package list, machine or usage data.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.course.trackers.base import (
    SECRET_FIELD,
    Point,
    Run,
    Unavailable,
    public_uri,
    was_stopped,
)
from finetune_trainer.store.credentials import read_key

INIT_SECONDS = 30.0
FINISH_SECONDS = 4.0
KEPT_OFF = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class WandbTracker:
    """A run in a project, or in `ENTITY/PROJECT`."""

    def __init__(
        self, uri: str | None, run: Run, credentials_dir: str | None, directory: Path
    ) -> None:
        self.run_id: str | None = run.run_id or run.uid
        self._uri = uri
        self._run = run
        self._credentials_dir = credentials_dir
        self._directory = directory
        self._wandb: Any = None

    def open(self) -> None:
        """Create the run or go on with it."""
        key = read_key(self._credentials_dir, CredentialKey.WANDB_API_KEY, SECRET_FIELD)
        if key is None:  # wandb would ask for one on a terminal
            raise Unavailable(f"{SECRET_FIELD} needs {CredentialKey.WANDB_API_KEY}")
        entity, _, project = self._run.project.rpartition("/")
        try:
            self._wandb = wandb.init(
                project=project,
                entity=entity or None,
                id=self.run_id,
                name=self._run.name,
                resume="allow",
                config={**self._run.params, **self._run.tags},
                settings=self._settings(key),
            )
        except wandb.Error as error:
            server = public_uri(self._uri) if self._uri else "wandb"
            raise Unavailable(
                f"{server}: {type(error).__name__}; check spec.tracking.uri and {SECRET_FIELD}"
            ) from error

    def reached(self, key: str) -> int:
        """Return the last step of the run's history; all curves share it."""
        return int(self._wandb.starting_step) - 1

    def log(self, points: Sequence[Point]) -> None:
        """Add one row of history per step."""
        for step, row in itertools.groupby(points, key=lambda point: point.step):
            self._wandb.log({point.key: point.value for point in row}, step=step)

    def close(self, reason: Reason) -> None:
        """Mark the run finished, preempted where a next attempt goes on, else failed."""
        if was_stopped(reason):
            self._wandb.mark_preempting()
        self._wandb.finish(exit_code=0 if reason is Reason.SUCCEEDED else 1)

    def _settings(self, key: str) -> wandb.Settings:
        self._directory.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            **KEPT_OFF,
            "api_key": key,
            "finish_timeout": FINISH_SECONDS,
            "init_timeout": INIT_SECONDS,
            "root_dir": str(self._directory),
            "silent": True,
        }
        if self._uri is not None:
            settings["base_url"] = self._uri
        return wandb.Settings(**settings)

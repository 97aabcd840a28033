"""Run a FineTuneJob on this machine: the operator's plan and the trainer, without an API server."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.spec import FineTuneJobSpec
from finetune_contract import result as contract_result
from finetune_contract.layout import RewardRunner
from finetune_contract.progress import Progress
from finetune_contract.reasons import Reason, reason_of_exit_code
from finetune_contract.recipe import Recipe
from finetune_contract.result import Outcome, Result
from finetune_contract.runconfig import FILE_NAME, RunConfig
from finetune_local.paths import cache_dir, state_dir
from finetune_operator.job.credentials import Credential, credential_directories, credentials
from finetune_operator.job.errors import Stalled
from finetune_operator.job.footprint import Footprint
from finetune_operator.job.run_config import Mounts, run_config

_POLL_SECONDS = 0.2
_LOG_TAIL_LINES = 20
_LOCAL_IMAGE = "local"


class CannotRun(Exception):
    """The job can not be run on this machine as asked; the message names field and remedy."""


@dataclass(frozen=True)
class LocalRun:
    """One run that is ready to start.

    `changed` names what of the recipe is another than when the run was last started.
    """

    run_id: str
    directory: Path
    config: RunConfig
    changed: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """Return the trainer's log."""
        return self.directory / "trainer.log"

    def log_tail(self) -> str:
        """Return the last lines of the trainer's log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_LOG_TAIL_LINES:])


def prepare(
    job: FineTuneJob,
    secret_dirs: Mapping[str, Path],
    output: Path | None = None,
    resume: str | None = None,
    reward_sources: Mapping[str, str] | None = None,
) -> LocalRun:
    """Plan one attempt of the job with every process on this machine.

    `secret_dirs` holds a directory for each Secret that the job names, one file per key. `output`
    replaces spec.output.uri by a directory. `resume` is the id of a run to go on with, from its
    newest checkpoint. `reward_sources` are the texts of rewards that are code, by the reward's
    name. Raises CannotRun.
    """
    spec = job.spec
    run_id = resume or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    directory = state_dir() / "runs" / run_id
    before = _last_config(directory) if resume else None
    secrets_used = {p: of for p, of in credentials(job).items() if not (output and p == "output")}
    found = {part: _directory(of, secret_dirs) for part, of in secrets_used.items()}
    sources = {name: str(_source_path(directory, name)) for name in reward_sources or {}}
    mounts = Mounts(
        credentials=credential_directories(job, found),
        cache_dir=str(_model_cache(spec)),
        scratch_dir=str(directory / "scratch"),
        reward_runner=RewardRunner(sources=sources) if sources else None,
    )
    try:
        planned = run_config(
            job,
            attempt=before.layout.attempt + 1 if before else 1,
            uid=run_id,
            image=_LOCAL_IMAGE,
            footprint=Footprint.asked(spec),
            heartbeat_seconds=None,
            mounts=mounts,
        )
    except Stalled as stalled:
        raise CannotRun(stalled.message) from stalled
    layout = planned.layout.model_copy(
        update={
            "workers": 1,
            "processes_per_worker": planned.layout.world_size,
            "output_uri": output.absolute().as_uri() if output else spec.output.uri,
        }
    )
    config = planned.model_copy(update={"layout": layout})
    (directory / "scratch").mkdir(parents=True, exist_ok=True)
    for name, text in (reward_sources or {}).items():
        _source_path(directory, name).parent.mkdir(exist_ok=True)
        _source_path(directory, name).write_text(text)
    (directory / FILE_NAME).write_text(config.to_json())
    changed = _changed(_fields(before.recipe), _fields(config.recipe)) if before else ()
    return LocalRun(run_id, directory, config, tuple(changed))


def execute(run: LocalRun, on_progress: Callable[[Progress], None]) -> Result:
    """Start the trainer, report its progress, return how it ended.

    On KeyboardInterrupt the trainer is told to stop and waited for, then the interrupt goes on.
    """
    progress_file = run.directory / "progress.json"
    termination_log = run.directory / "termination-log"
    command = [sys.executable, "-m", "finetune_trainer.launch"]
    command += ["--run-config", str(run.directory / FILE_NAME)]
    command += ["--termination-log", str(termination_log), "--progress-file", str(progress_file)]
    for stale in (progress_file, termination_log):
        stale.unlink(missing_ok=True)
    with run.log.open("ab") as log:
        trainer = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        try:
            _follow(trainer, progress_file, on_progress)
        finally:
            _stop(trainer, run.config.layout.grace_seconds)
    return _result(run.config.layout.attempt, trainer.returncode, termination_log)


def _environment() -> dict[str, str]:
    """Return this process's environment, with stores on loopback never asked for by a proxy."""
    spared = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]
    return {**os.environ, "NO_PROXY": ",".join(filter(None, spared))}


def _follow(
    trainer: subprocess.Popen[bytes], path: Path, on_progress: Callable[[Progress], None]
) -> None:
    seen = ""
    while True:
        ended = trainer.poll() is not None
        text = path.read_text() if path.exists() else ""
        if text and text != seen:
            on_progress(Progress.model_validate_json(text))
            seen = text
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def _stop(trainer: subprocess.Popen[bytes], grace_seconds: float) -> None:
    if trainer.poll() is not None:
        return
    trainer.send_signal(signal.SIGTERM)
    try:
        trainer.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        trainer.kill()
        trainer.wait()


def _result(attempt: int, exit_code: int, termination_log: Path) -> Result:
    text = termination_log.read_text() if termination_log.exists() else ""
    result = contract_result.decode(text)
    if result is not None:
        return result
    if exit_code < 0:
        message = f"the trainer was ended by {signal.Signals(-exit_code).name}"
        reason = Reason.OUT_OF_MEMORY if exit_code == -signal.SIGKILL else Reason.INTERRUPTED
    else:
        reason = reason_of_exit_code(exit_code) or Reason.TRAINER_ERROR
        message = f"the trainer ended with exit code {exit_code} and told no result"
    return Result(attempt=attempt, outcome=Outcome.FAILED, reason=reason, message=message)


def _directory(of: Credential, secret_dirs: Mapping[str, Path]) -> str:
    if of.secret not in secret_dirs:
        raise CannotRun(
            f'{of.field}: there is no Secret "{of.secret}" without a cluster; '
            f"give its keys as files in a directory: --secret {of.secret}=DIR"
        )
    path = secret_dirs[of.secret]
    if not path.is_dir():
        raise CannotRun(f"--secret {of.secret}={path}: is not a directory; make one file per key")
    return str(path.absolute())


def _source_path(directory: Path, reward: str) -> Path:
    return directory / "rewards" / f"{reward}.py"


def _last_config(directory: Path) -> RunConfig:
    """Return what the last attempt of a run was told."""
    try:
        text = (directory / FILE_NAME).read_text()
    except FileNotFoundError:
        raise CannotRun(
            f"--resume {directory.name}: there is no such run in {directory.parent}"
        ) from None
    return RunConfig.model_validate_json(text)


def _fields(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", by_alias=True)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the names of the fields that differ, such as `training.seed`."""
    for name, value in now.items():
        theirs = before[name]
        if isinstance(value, Mapping) and isinstance(theirs, Mapping):
            yield from _changed(theirs, value, f"{prefix}{name}.")
        elif value != theirs:
            yield f"{prefix}{name}"


def _model_cache(spec: FineTuneJobSpec) -> Path:
    host_path = spec.model.cache and spec.model.cache.host_path
    return Path(host_path.path) if host_path else cache_dir() / "models"

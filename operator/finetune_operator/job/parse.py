"""A body as the cluster stores it -> FineTuneJob, or Stalled with the paths of wrong fields."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from finetune_api.crd import schema
from finetune_api.job import FineTuneJob
from finetune_api.status import ConditionType, FineTuneJobStatus
from finetune_api.validation import InvalidJob, known_part, reread
from finetune_api.validation import parse as parse_job
from finetune_contract.reasons import Reason
from finetune_operator.job.errors import Stalled
from finetune_operator.job.stored import find, stored_status

_UNCHECKED = (Reason.INVALID_SPEC, Reason.OPERATOR_ERROR)


class Parser:
    """Parses jobs; the rules between a spec's fields are checked once per generation, since that is
    the costly part: before anything is made of it, by this operator or by the one before.

    A newer CRD brings fields that this operator does not know: a job that has begun goes on without
    them, and `note` is told of a body and their paths.
    """

    def __init__(
        self, note: Callable[[dict[str, Any], list[str]], None] = lambda body, paths: None
    ) -> None:
        schema()  # takes as long as hundreds of passes: the first job does not wait for it
        self._note = note
        self._checked: dict[tuple[str, str], tuple[str, int]] = {}  # uid and generation, by name
        self._unknown: dict[tuple[str, str], list[str]] = {}  # paths, by name

    def parse(self, body: dict[str, Any], now: datetime | None = None) -> FineTuneJob:
        """Return the job with its defaults. Raises Stalled(InvalidSpec) naming every wrong field.

        A server with the CRD refuses such a job; one may have been stored under an older CRD.
        """
        metadata, stored = body["metadata"], body.get("status")
        status = stored_status(body, now)
        key = metadata["namespace"], metadata["name"]
        version = metadata["uid"], metadata["generation"]
        spec = {k: v for k, v in body.items() if k != "status"}
        unknown: list[str] = []
        if isinstance(stored, dict) and stored.get("attempts"):
            spec, unknown = known_part(spec)
        self._unknown.pop(key, None)
        if unknown:
            self._unknown[key] = unknown
        known = self._checked.get(key) == version
        if not known and unknown:
            self._note(body, unknown)
        elif not known:
            known = _was_checked(status, metadata["generation"])
        job = _again(spec) if known else None
        job = job or _checked(spec)
        self._checked[key] = version
        return job.model_copy(update={"metadata": metadata, "status": status})

    def unknown(self, namespace: str, name: str) -> list[str]:
        """Return the paths of the fields without which a job goes on."""
        return self._unknown.get((namespace, name), [])

    def forget(self, namespace: str, name: str) -> None:
        """Drop what is known of a deleted job."""
        self._checked.pop((namespace, name), None)
        self._unknown.pop((namespace, name), None)


def _was_checked(status: FineTuneJobStatus, generation: int) -> bool:
    """Tell whether an operator found the spec good and made an attempt of it."""
    said = find(status, ConditionType.SUCCEEDED)
    observed = status.observed_generation == generation
    return bool(observed and status.attempts and said and said.reason not in _UNCHECKED)


def _again(spec: dict[str, Any]) -> FineTuneJob | None:
    try:
        return reread(spec)
    except ValidationError:  # it was stored by other means, and has to be refused in full
        return None


def _checked(spec: dict[str, Any]) -> FineTuneJob:
    try:
        return parse_job(spec)
    except InvalidJob as invalid:
        raise Stalled(Reason.INVALID_SPEC, str(invalid)) from invalid

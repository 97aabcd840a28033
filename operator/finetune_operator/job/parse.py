"""A body as the cluster stores it -> FineTuneJob, or Stalled with the paths of wrong fields."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.validation import InvalidJob, known_part
from finetune_api.validation import parse as parse_job
from finetune_contract.reasons import Reason
from finetune_operator.job.errors import Stalled
from finetune_operator.job.stored import stored_status


class Parser:
    """Parses jobs; a spec is checked once per generation, since checking it is the costly part.

    A newer CRD brings fields that this operator does not know: a job that has begun goes on without
    them, and `note` is told of a body and their paths.
    """

    def __init__(
        self, note: Callable[[dict[str, Any], list[str]], None] = lambda body, paths: None
    ) -> None:
        self._note = note
        self._jobs: dict[tuple[str, str], FineTuneJob] = {}  # by namespace and name

    def parse(self, body: dict[str, Any], now: datetime | None = None) -> FineTuneJob:
        """Return the job with its defaults. Raises Stalled(InvalidSpec) naming every wrong field.

        A server with the CRD refuses such a job; one may have been stored under an older CRD.
        """
        metadata = body["metadata"]
        key = metadata["namespace"], metadata["name"]
        known = self._jobs.get(key)
        version = metadata["uid"], metadata["generation"]
        if known is None or (known.uid, known.generation) != version:
            known = self._read(body)
            self._jobs[key] = known
        return known.model_copy(update={"metadata": metadata, "status": stored_status(body, now)})

    def _read(self, body: dict[str, Any]) -> FineTuneJob:
        status = body.get("status")
        spec = {k: v for k, v in body.items() if k != "status"}
        if isinstance(status, dict) and status.get("attempts"):
            spec, unknown = known_part(spec)
            if unknown:
                self._note(body, unknown)
        try:
            return parse_job(spec)
        except InvalidJob as invalid:
            raise Stalled(Reason.INVALID_SPEC, str(invalid)) from invalid

    def forget(self, namespace: str, name: str) -> None:
        """Drop what is known of a deleted job."""
        self._jobs.pop((namespace, name), None)

"""Backends: the API that turns a pod template into the pods of an attempt.

One file per backend, and nothing outside it knows that API.
"""

from __future__ import annotations

from typing import Any, Protocol

from finetune_api.job import FineTuneJob


class Backend(Protocol):
    """What the operator needs of a backend."""

    api_version: str
    kind: str
    plural: str

    def workload(self, job: FineTuneJob, attempt: int, template: dict[str, Any]) -> dict[str, Any]:
        """Return the object that makes one pod per worker from the template, and restarts none."""

    def node_rank(self, pod_name: str) -> int | None:
        """Return a pod's place, 0 for the one with rank 0; None if it is no pod of a workload."""

    def outcome(self, workload: dict[str, Any]) -> bool | None:
        """Return whether the workload has ended well; None while it has not ended."""

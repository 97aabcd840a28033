"""What the operator must know of the API that turns a pod template into the pods of an attempt.

`plan.backends` has one file per such API, and nothing outside it knows any.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import Object
from finetune_operator.job.resources import Resource


class Backend(Protocol):
    """One API that makes pods."""

    kinds: Mapping[str, Resource]
    """Where the kinds of its objects are served."""

    workload: str
    """The one of them that makes the pods and tells how they ended; messages call it so."""

    container: str
    """The name that it asks the trainer's container to have."""

    init_container: str
    """The one that it lets workers begin with, which waits for rank 0."""

    clean_up: timedelta
    """How long it may take, once a pod has failed, to delete those that still run."""

    def objects(self, job: FineTuneJob, attempt: int, template: Object) -> tuple[Object, ...]:
        """Return what makes one pod per worker from the template, and restarts none.

        They are created one after the other, once; the workload is the last.
        """

    def pod_name(self, workload: str, rank: int) -> str:
        """Return the name that the pod with a rank has; `workload` is its workload's."""

    def node_rank(self, pod: Object) -> int | None:
        """Return a pod's place, 0 for the one with rank 0; None if it is no pod of a workload."""

    def held(self, workload: Object) -> str | None:
        """Return what keeps a workload from making pods, such as a queue; None if nothing does."""

    def repeats(self, event: Object) -> bool:
        """Tell whether an Event of a workload repeats what one of its pods says itself."""

    def outcome(self, workload: Object) -> bool | None:
        """Return whether the workload has ended well; None while it has not ended."""

"""The backends that tests run over: the operator's own, and one that differs wherever it may.

Each plays its controller too: which pods it makes of its objects, and how it says that they ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol

from finetune_api.job import FineTuneJob
from finetune_operator.job.backend import Backend
from finetune_operator.job.names import child
from finetune_operator.job.resources import Resource
from finetune_operator.plan.backends.pytorchjob import PyTorchJob

Json = Any


class Played(Backend, Protocol):
    """A backend whose controller a World plays."""

    def pods(self, workload: Json, find: Callable[[str, str], Json]) -> Iterator[tuple[str, Json]]:
        """Yield name and template of every pod; `find` takes kind and name of an object."""

    def has_failed(self, pod: Json) -> bool:
        """Tell whether its controller lets a pod fail the workload."""

    def ended(self, well: bool) -> Json:
        """Return the status of a workload that has ended."""


class OneObject(PyTorchJob):
    """A PyTorchJob per attempt, and training-operator."""

    def pods(self, workload: Json, find: Callable[[str, str], Json]) -> Iterator[tuple[str, Json]]:
        first = 0
        for replica in workload["spec"]["pytorchReplicaSpecs"].values():
            for rank in range(first, first + replica["replicas"]):
                yield self.pod_name(workload["metadata"]["name"], rank), replica["template"]
            first += replica["replicas"]

    def has_failed(self, pod: Json) -> bool:
        phase = pod["status"]["phase"]
        return phase == "Failed" or (phase == "Running" and "deletionTimestamp" in pod["metadata"])

    def ended(self, well: bool) -> Json:
        kind = "Succeeded" if well else "Failed"
        return {"conditions": [{"type": kind, "status": "True"}]}


class TwoObjects:
    """A template in an object of its own, and a job that refers to it."""

    workload = "Train"
    kinds: Mapping[str, Resource] = {
        "TrainTemplate": Resource("trains.example/v2", "traintemplates"),
        workload: Resource("trains.example/v2", "trains"),
    }
    container = "node"
    init_container = "init-node"
    clean_up = timedelta(seconds=5)

    def objects(self, job: FineTuneJob, attempt: int, template: Json) -> tuple[Json, ...]:
        apart = child(job, "trains.example/v2", "TrainTemplate", attempt, spec=template)
        spec = {"template": apart["metadata"]["name"], "nodes": job.spec.workers.replicas}
        return apart, child(job, "trains.example/v2", self.workload, attempt, spec=spec)

    def node_rank(self, pod: Json) -> int | None:
        _, node, index = pod["metadata"]["name"].rpartition("-node-")
        return int(index) if node else None

    def held(self, workload: Json) -> str | None:
        policy = workload.get("spec", {}).get("runPolicy", {})
        return (
            "is suspended, as by a queue that has not admitted it"
            if policy.get("suspend")
            else None
        )

    def repeats(self, event: Json) -> bool:
        return False

    def outcome(self, workload: Json) -> bool | None:
        phase = workload.get("status", {}).get("phase")
        return {"Complete": True, "Broken": False}.get(phase)

    def pod_name(self, workload: str, rank: int) -> str:
        return f"{workload}-node-{rank}"

    def pods(self, workload: Json, find: Callable[[str, str], Json]) -> Iterator[tuple[str, Json]]:
        template = find("TrainTemplate", workload["spec"]["template"])
        for rank in range(workload["spec"]["nodes"] if template else 0):
            yield self.pod_name(workload["metadata"]["name"], rank), template["spec"]

    def has_failed(self, pod: Json) -> bool:
        return bool(pod["status"]["phase"] == "Failed")

    def ended(self, well: bool) -> Json:
        return {"phase": "Complete" if well else "Broken"}


ONE_OBJECT, TWO_OBJECTS = OneObject(), TwoObjects()
BACKENDS: tuple[Played, ...] = (ONE_OBJECT, TWO_OBJECTS)
NAMES = ["one object", "two objects"]

"""A World in which pods can be refused, kept from starting and left with an end of any kind."""

from __future__ import annotations

from functools import partial
from typing import Any

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.reasons import exit_code
from finetune_operator.cluster.api import ApiError, Listing
from finetune_trainer.course.pulse import LEAST
from finetune_trainer.process.ending import failed
from finetune_trainer.process.errors import Failure
from support.operator.model.api_server import ModelApi
from support.operator.model.invariants import may_create, may_delete, may_follow, may_run
from support.operator.model.store import copied
from support.operator.model.trainers import attempt_of, trains, tries_rewards
from support.operator.model.world import World

Json = Any
NOT_SERVED = ApiError(404, "NotFound", "the server could not find the requested resource")


class Cluster(World):
    """What stands in the way of pods is by rank, and of the newest attempt's."""

    def __init__(self) -> None:
        super().__init__()
        self.on_start = partial(may_run, self)
        self.unfit: dict[int, str] = {}  # pods are not made, in the API server's words
        self.stuck: dict[int, Json] = {}  # pods do not start; their status then
        self.warnings: dict[int, str] = {}  # newest Event of a pod
        self.pulls: set[int] = set()  # whose pods' last Event says that an image is pulled
        self.queued = False  # what admits workloads has not admitted any
        self.controlled = True  # training-operator is at work
        self.collected = True  # the garbage collector is
        self.forged: Json = {}  # what a tenant writes over the reports of its Lease
        self.note: str | None = None  # of the trainer, in its Progress

    def add(self, body: Json) -> Json:
        added = super().add(body)
        if body["kind"] == self.backend.workload and self.queued:
            self.hold(True)
        return added

    def train_operator(self) -> None:
        if self.controlled:
            super().train_operator()

    def collect(self) -> None:
        if self.collected:
            super().collect()

    def pods_of(self, workload: Json) -> list[Json]:
        return self._pods_of(workload)

    def _objection(self, name: str) -> str | None:
        return self.unfit.get(self.backend.node_rank({"metadata": {"name": name}}) or 0)

    def _warn(self, about: Json, message: str) -> None:
        self.said.pop(about["metadata"]["uid"], None)  # an Event in a series: the newest counts
        super()._warn(about, message)

    def _start(self, pod: Json) -> None:
        rank = self.backend.node_rank(pod) or 0
        if tries_rewards(pod) or rank not in self.stuck:
            super()._start(pod)
            return
        if rank in self.pulls:
            told = {"type": "Normal", "reason": "Pulling", "message": "Pulling image"}
            self.said[pod["metadata"]["uid"]] = [{**told, "lastTimestamp": self.stamp()}]
        if rank in self.warnings:
            self._warn(pod, self.warnings[rank])
        told = self._dated(pod["status"], self.stuck[rank])
        if pod["status"] != told:
            self.store({**copied(pod), "status": told})

    def _dated(self, now: Json, status: Json) -> Json:
        """Return a status with the time at which the pod was given its node, once it was."""
        known = {c["type"]: c for c in now.get("conditions", [])}
        dated = copied(status)
        for condition in dated["conditions"]:
            stands = known.get(condition["type"], {})
            same = stands.get("status") == condition["status"]
            at = stands.get("lastTransitionTime") if same else None
            condition["lastTransitionTime"] = at or self.stamp()
        return {"phase": "Pending", **dated}

    def train(self, name: str, steps: int, save: bool) -> None:
        super().train(name, steps, save)
        for lease in self.all("Lease") if self.forged else ():
            self.store({**copied(lease), **copied(self.forged)})

    def _progress(self, attempt: int, step: int) -> Json:
        told = super()._progress(attempt, step) | {"stallTimeoutSeconds": round(LEAST)}
        return {**told, "note": self.note} if self.note else told

    def show(self, name: str, status: Json) -> None:
        """Let a kubelet change parts of a pod's status."""
        pod = copied(self.objects["Pod", name])
        self.store({**pod, "status": {**pod["status"], **status}})

    def end_with(self, name: str, terminated: Json) -> None:
        """End a pod's trainer so."""
        pod = self.objects.get(("Pod", name))
        if pod is None or not trains(pod):
            return
        body = copied(pod)
        if not self.sidecars:
            body["status"]["phase"] = "Failed"
        ended = {"finishedAt": self.stamp(), "reason": "Error", **terminated}
        body["status"]["containerStatuses"][0]["state"] = {"terminated": ended}
        self.store(body)

    def fail(self, name: str, failure: Failure) -> None:
        """End a pod's trainer with the Result that it writes of a failure."""
        pod = self.objects.get(("Pod", name))
        if pod is None:
            return
        attempt = attempt_of(pod)
        result = failed(failure, attempt=attempt, rank=self.backend.node_rank(pod) or 0)
        if self.leads(pod):
            known = CheckpointRef.model_validate(self.saved) if self.saved else None
            step = self.steps[attempt] + 1
            result = result.model_copy(update={"checkpoint": known, "step": step})
        code = exit_code(failure.reason)
        self.end_with(name, {"exitCode": code, "message": result.encode()})


class Server(ModelApi):
    """The API server of a Cluster; `refusals` says how creating a kind is refused,
    `undeletable` how its deletion is, `broken` how everything is."""

    world: Cluster

    def __init__(self, world: Cluster) -> None:
        super().__init__(world, self._may_create, self._may_follow)
        self.refusals: dict[str, Exception] = {}
        self.undeletable: dict[str, Exception] = {}  # kinds
        self.broken: Exception | None = None
        self.check_deletion = self._may_delete
        self.unserved: set[str] = set()  # kinds
        self.forbidden: set[str] = set()  # namespaces
        self.told: list[tuple[Any, Json]] = []  # statuses as they were written, and when

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        if kind in self.unserved:
            raise NOT_SERVED
        if namespace in self.forbidden:
            raise ApiError(403, "Forbidden", f'cannot list resource in "{namespace}"')
        return await super().list_objects(kind, namespace, selector)

    def _may_create(self, body: Json) -> None:
        if body["kind"] in self.unserved:
            raise NOT_SERVED
        if refusal := self.refusals.get(body["kind"]):
            raise refusal
        may_create(self.world, body)

    def _may_delete(self, body: Json, at_once: bool) -> None:
        if refusal := self.undeletable.get(body["kind"]):
            raise refusal
        may_delete(self.world, body, at_once)

    def _may_follow(self, old: Json, believed: Json, new: Json) -> None:
        may_follow(self.world, old, believed, new)
        self.told.append((self.clock.own(), copied(new)))

    def _ask(self) -> None:
        super()._ask()
        if self.broken is not None:
            raise self.broken


def forbidden(kind: str, words: str, code: int = 403) -> ApiError:
    """Return an API server's refusal to create an object."""
    return ApiError(code, "Forbidden", f'{kind} "bot-a1" is forbidden: {words}')

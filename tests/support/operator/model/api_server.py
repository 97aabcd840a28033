"""The API server of a World: requests can fail, lose their answer, or be the operator's last."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Listing, Unreachable
from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.clock import ServerClock
from finetune_operator.events import Recorder
from finetune_operator.lookout import Lookout
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings
from support.operator.model.world import World

Json = Any
Check = Callable[[Json], None]
StatusCheck = Callable[[Json, Json, Json], None]  # stored, believed to be stored, new


class Crash(BaseException):
    """The operator's process dies here."""


@dataclass
class Fault:
    """What befalls the n-th write from now: `before` or `after` it, a crash or only an error."""

    write: int
    after: bool
    crash: bool


class ModelApi:
    """`Api` over a World, with one fault ahead; the checks may object to what is written."""

    def __init__(
        self,
        world: World,
        check: Check,
        check_status: StatusCheck = lambda old, believed, new: None,
    ) -> None:
        self.world = world
        self.clock = ServerClock(lambda: world.now)
        self.fault: Fault | None = None
        self.dead = False
        self.events: list[Json] = []  # about whatever is asked
        self.turns: dict[str, int] = {}  # of the event loop, before an object of a kind is made
        self.on_deleted: Callable[[str, bool], None] = lambda kind, at_once: None
        self._check = check
        self._check_status = check_status

    async def list_objects(self, kind: str, namespace: str | None, selector: str) -> Listing:
        self._alive()
        key, _, value = selector.partition("=")
        items = [
            copy.deepcopy(b)
            for b in self.world.all(kind)
            if not selector or b["metadata"].get("labels", {}).get(key) == value
        ]
        return Listing(tuple(items), str(self.world.version))

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        self._alive()
        return copy.deepcopy(self.world.objects.get((kind, name)))

    async def create(self, body: Json) -> Json:
        if body["kind"] == "Event":
            return body
        for _ in range(self.turns.get(body["kind"], 0)):
            await asyncio.sleep(0)

        def write() -> Json:
            known = self.world.objects
            if (body["kind"], body["metadata"]["name"]) in known:
                raise ApiError(409, "AlreadyExists", "already exists")
            self._check(body)
            if body["kind"] == "RoleBinding" and ("Role", body["roleRef"]["name"]) not in known:
                raise ApiError(404, "NotFound", "the Role that it refers to is not found")
            return self.world.add(body)

        return self._write(write)

    async def apply(self, body: Json) -> Json:
        def write() -> Json:
            known = self.world.objects.get((body["kind"], body["metadata"]["name"]))
            at = ("uid", "resourceVersion")
            if known is None or any(known["metadata"][n] != body["metadata"][n] for n in at):
                raise ApiError(409, "Conflict", "the object has been modified")
            metadata = {**known["metadata"], **copy.deepcopy(body["metadata"])}
            return self.world.store({**known, **copy.deepcopy(body), "metadata": metadata})

        return self._write(write)

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, at_once: bool = False
    ) -> None:
        def write() -> None:
            known = self.world.objects.get((kind, name))
            if known is None or known["metadata"]["uid"] != uid:
                return
            if kind != "Pod":
                self.world.drop(kind, name)
            elif at_once:
                self.world.force_out(name)
            else:
                self.world.delete_pod(name)

        self._write(write)
        self.on_deleted(kind, at_once)

    async def patch_status(self, body: Json, status: Json) -> Json:
        def write() -> Json:
            known = self.world.objects.get((KIND, body["metadata"]["name"]))
            if known is None:
                raise ApiError(404, "NotFound", "not found")
            if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", "the object has been modified")
            self._check_status(known.get("status", {}), body.get("status", {}), status)
            return self.world.store({**copy.deepcopy(known), "status": copy.deepcopy(status)})

        return self._write(write)

    async def events_of(self, namespace: str, uid: str) -> list[Json]:
        self._alive()
        return copy.deepcopy(self.events)

    async def has_logged(self, namespace: str, pod: str, container: str, seconds: int) -> bool:
        self._alive()
        assert self.world.find("Pod", pod), "it is asked of pods that are there"
        told = self.world.logged.get(pod)
        return told is not None and (self.world.now - told).total_seconds() < seconds

    async def patch_event(self, namespace: str, name: str, patch: Json) -> None:
        self._alive()

    def _alive(self) -> None:
        if self.dead:
            raise Crash

    def _write(self, write: Any) -> Any:
        self._alive()
        fault, hit = self.fault, False
        if fault is not None:
            fault.write -= 1
            hit = fault.write < 0
        if hit and not fault.after:
            self._strike(fault)
        answer = write()
        self.world.writes += 1
        if hit and fault.after:
            self._strike(fault)
        return answer

    def _strike(self, fault: Fault) -> None:
        self.fault = None
        if fault.crash:
            self.dead = True
            raise Crash
        raise Unreachable("the connection was lost")


def reconciler_on(
    api: ModelApi,
    cache: Cache,
    settings: Settings,
    on_attempt_end: Callable[[str], None] = lambda reason: None,
) -> Reconciler:
    """Return a reconciler that lives by the World's clock."""
    return Reconciler(
        api,
        cache,
        settings,
        api.world.backend,
        clock=lambda: api.world.now,
        recorder=Recorder(api),
        on_attempt_end=on_attempt_end,
        lookout=Lookout(lambda: api.world.now.timestamp()),
    )

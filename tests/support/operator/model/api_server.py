"""The API server of a World: requests can be refused, fail, lose their answer, come late, or be
the operator's last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Change, Listing, NotLeading, Unreachable
from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.clock import ServerClock
from finetune_operator.events import Recorder
from finetune_operator.lookout import Lookout
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings
from support.operator.model.store import copied
from support.operator.model.world import World

Json = Any
Check = Callable[[Json], None]
StatusCheck = Callable[[Json, Json, Json], None]  # stored, believed to be stored, new
REFUSALS = {
    "down": ApiError(500, "InternalError", "etcdserver: request timed out"),
    "busy": ApiError(429, "TooManyRequests", "too many requests"),
    "quota": ApiError(403, "Forbidden", 'is forbidden: exceeded quota: objects, used: count/"9"'),
}


class Crash(BaseException):
    """The operator's process dies here."""


class Violation(BaseException):
    """A request that a check objects to; the operator can not take it for a failure."""


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
        ahead: timedelta = timedelta(),
    ) -> None:
        """`ahead`: how far the clock of the operator's machine is before the server's."""
        self.world = world
        self.clock = ServerClock(lambda: world.now + ahead)
        self.fault: Fault | None = None
        self.outage = 0  # so many requests from now are not answered
        self.late: int | None = None  # the write from now that is on its way for long
        self.on_its_way: asyncio.Future[None] | None = None
        self.may_write: Callable[[], bool] = lambda: True
        self.dead = False
        self.events: list[Json] = []  # about whatever is asked
        self.turns: dict[str, int] = {}  # of the event loop, before an object of a kind is made
        self.on_deleted: Callable[[str, bool], None] = lambda kind, at_once: None
        self.check_deletion: Callable[[Json, bool], None] = lambda body, at_once: None
        self._check = check
        self._check_status = check_status

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        self._ask()
        key, _, value = selector.partition("=")
        items = [
            copied(b)
            for b in self.world.all(kind)
            if not selector or b["metadata"].get("labels", {}).get(key) == value
        ]
        return Listing(tuple(items), str(self.world.version))

    async def watch(
        self, kind: str, namespace: str | None, selector: str, version: str
    ) -> AsyncGenerator[Change]:
        """Show nothing: what watches show, the World's `deliveries` tell."""
        await asyncio.Event().wait()
        yield Change(version)

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        self._ask()
        return copied(self.world.objects.get((kind, name)))

    async def create(self, body: Json) -> Json:
        if body["kind"] == "Event":
            return body
        for _ in range(self.turns.get(body["kind"], 0)):
            await asyncio.sleep(0)

        def write() -> Json:
            known = self.world.objects
            if (body["kind"], body["metadata"]["name"]) in known:
                raise ApiError(409, "AlreadyExists", "already exists")
            if why := self.world.refused.get(body["kind"]):
                raise REFUSALS[why]
            if not self.dead and self.may_write():  # else whoever leads now has to see to it
                self._examine(self._check, body)
            if body["kind"] == "RoleBinding" and ("Role", body["roleRef"]["name"]) not in known:
                raise ApiError(404, "NotFound", "the Role that it refers to is not found")
            return self.world.add(body)

        return await self._write(write)

    async def apply(self, body: Json) -> Json:
        def write() -> Json:
            known = self.world.objects.get((body["kind"], body["metadata"]["name"]))
            at = ("uid", "resourceVersion")
            if known is None or any(known["metadata"][n] != body["metadata"][n] for n in at):
                raise ApiError(409, "Conflict", "the object has been modified")
            metadata = {**known["metadata"], **copied(body["metadata"])}
            return self.world.store({**known, **copied(body), "metadata": metadata})

        return await self._write(write)

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, at_once: bool = False
    ) -> None:
        def write() -> None:
            known = self.world.objects.get((kind, name))
            if known is None or known["metadata"]["uid"] != uid:
                return
            self._examine(self.check_deletion, known, at_once)
            if kind != "Pod":
                self.world.drop(kind, name)
            elif at_once:
                self.world.force_out(name)
            else:
                self.world.delete_pod(name)

        await self._write(write)
        self.on_deleted(kind, at_once)

    async def patch_status(self, body: Json, status: Json) -> Json:
        def write() -> Json:
            known = self.world.objects.get((KIND, body["metadata"]["name"]))
            if known is None:
                raise ApiError(404, "NotFound", "not found")
            if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", "the object has been modified")
            stood = known.get("status", {})
            self._examine(self._check_status, stood, body.get("status", {}), status)
            return self.world.store({**copied(known), "status": copied(status)})

        return await self._write(write)

    async def events_of(self, namespace: str, uid: str) -> list[Json]:
        self._ask()
        return copied([*self.events, *self.world.said.get(uid, [])])

    async def has_logged(self, namespace: str, pod: str, container: str, seconds: int) -> bool:
        self._ask()
        if self.world.find("Pod", pod) is None:
            raise ApiError(404, "NotFound", "the pod is not found")
        told = self.world.logged.get(pod)
        return told is not None and (self.world.now - told).total_seconds() < seconds

    async def patch_event(self, namespace: str, name: str, patch: Json) -> None:
        self._ask()

    def _examine(self, check: Callable[..., None], *what: Any) -> None:
        try:
            check(*what)
        except AssertionError as error:
            raise Violation(str(error)) from error

    def _ask(self) -> None:
        """Let a request be answered, if any is; the answer says what time it is."""
        if self.dead:
            raise Crash
        if self.outage:
            self.outage -= 1
            raise Unreachable("the connection was refused")
        own = self.clock.own()
        if own != self.world.now:
            self.clock.hear(format_datetime(self.world.now, usegmt=True), own, own)

    async def _write(self, write: Callable[[], Json]) -> Json:
        self._ask()
        if not self.may_write():
            raise NotLeading("this operator does not lead")
        await self._travel()
        fault, hit = self.fault, False
        if fault is not None:
            fault.write -= 1
            hit = fault.write < 0
        if hit and not fault.after:
            self._strike(fault)
        answer = write()
        self.world.writes += 1
        if self.dead:
            raise Crash
        if hit and fault.after:
            self._strike(fault)
        return answer

    async def _travel(self) -> None:
        """Be on the way to the server, which one write is until it is let arrive."""
        if self.late is None:
            return
        self.late -= 1
        if self.late < 0:
            self.late = None
            self.on_its_way = asyncio.get_running_loop().create_future()
            await self.on_its_way
            self.on_its_way = None

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
    """Return a reconciler that lives by the server's clock, as its answers tell it."""
    return Reconciler(
        api,
        cache,
        settings,
        api.world.backend,
        clock=api.clock.now,
        recorder=Recorder(api),
        on_attempt_end=on_attempt_end,
        lookout=Lookout(lambda: api.world.now.timestamp()),
    )

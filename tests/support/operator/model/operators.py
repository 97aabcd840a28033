"""One process of the operator in a World: what it remembers, what it is told of, and its passes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from finetune_api.job import KIND
from finetune_operator.cluster.api import Unreachable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.election import Candidate
from finetune_operator.cluster.queue import RetryLater
from finetune_operator.cluster.sync import Synchroniser
from finetune_operator.settings import Settings
from support.operator.model.api_server import Crash, ModelApi, Violation, reconciler_on
from support.operator.model.invariants import FENCE, MOST_LOST, may_create, may_delete, may_follow
from support.operator.model.leases import LeaseServer
from support.operator.model.store import Watch
from support.operator.model.world import World, child_kinds

Json = Any
KEY = Key("team", "bot")
SETTINGS = Settings(
    trainer_image="trainer:1",
    fence_timeout_seconds=FENCE,
    retry_base_seconds=10,
    retry_cap_seconds=20,
    max_infrastructure_attempts=MOST_LOST,
)
SIBLINGS = 20  # turns of the loop in which the writes beside a late one are done


class Operator:
    """A process: nothing remembered, everything listed. With a `lease` it has to be elected."""

    def __init__(
        self,
        world: World,
        watch: Watch,
        loop: asyncio.AbstractEventLoop,
        name: str,
        lease: LeaseServer | None,
        ahead: timedelta,
    ) -> None:
        self.world, self.watch, self._loop, self._lease = world, watch, loop, lease
        self._ahead = ahead
        self._candidate = Candidate("team", "operators", name) if lease else None
        self.cache = Cache()
        checks = (partial(may_create, world), partial(may_follow, world))
        self.api = ModelApi(world, *checks, ahead=ahead)
        self.api.check_deletion = partial(may_delete, world)
        self.api.may_write = self.leads
        self.reconciler = reconciler_on(self.api, self.cache, SETTINGS)
        self.kinds = child_kinds(world.backend)
        self.failed = 0  # passes in a row
        self._pass: asyncio.Task[float | None] | None = None
        watch.pending.clear()
        self.relist()

    def leads(self) -> bool:
        """Tell whether it believes that it leads; object if another does."""
        if self._candidate is None or self._lease is None:
            return True
        if not self._candidate.leads(self._clock()):
            return False
        holder = self._lease.get()["spec"]["holderIdentity"]
        assert holder in ("", self._candidate.identity), "two operators lead"
        return True

    def _clock(self) -> float:
        """Return the seconds since this machine was started, long ago or not."""
        return self.world.now.timestamp() + hash(self._ahead) % 10_000

    def elect(self) -> None:
        """Stand for election, or renew."""
        if self._candidate is None or self._lease is None:
            return
        today = self.world.now + self._ahead
        claim = self._candidate.claim(self._lease.get(), self._clock(), today)
        if claim is not None:
            sent = self._clock()
            self._candidate.won(self._lease.write(claim), sent, self._clock())

    def relist(self) -> None:
        synchroniser = Synchroniser(self.api, self.cache, self.kinds, (), lambda key: None)
        with suppress(Unreachable):
            self._loop.run_until_complete(synchroniser.list_all(None))

    def do_pass(self) -> bool:
        """Do a pass, unless it is not this operator's turn; return whether one was done to its
        end."""
        if self._pass is not None or not self.leads():
            return False
        self._pass = self._loop.create_task(self.reconciler.reconcile(KEY))
        return self._go_on()

    def arrive(self) -> bool:
        """Let what is on its way arrive, and the pass that waits for it go on."""
        if self.api.on_its_way is not None:
            self.api.on_its_way.set_result(None)
        return self._pass is not None and self._go_on()

    def _go_on(self) -> bool:
        assert self._pass is not None
        self._loop.run_until_complete(self._until_it_ends_or_waits(self._pass))
        if not self._pass.done():
            if self.api.dead:  # by another write than that which is on its way
                raise Crash
            return False
        done, self._pass = self._pass, None
        try:
            done.result()
        except RetryLater:
            self.failed += 1
            return False
        except Violation as violation:
            raise AssertionError(str(violation)) from violation
        self.failed = 0
        return True

    async def _until_it_ends_or_waits(self, work: asyncio.Task[Any]) -> None:
        while not work.done() and self.api.on_its_way is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        if not work.done():
            for _ in range(SIBLINGS):
                await asyncio.sleep(0)
        if work.done() and isinstance(work.exception(), Crash):
            self.api.dead = True

    def die(self) -> None:
        self.api.dead = True

    def deliver(self, kind: str, count: int) -> None:
        for event, body in self.watch.deliveries(kind, count):
            self.tell(event, body)

    def deliver_all(self) -> None:
        for kind in (KIND, *self.kinds):
            self.deliver(kind, 1_000)

    def tell(self, event: str, body: Json) -> None:
        if event == "DELETED":
            self.cache.remove(body)
        else:
            self.cache.put(body)

    def repeat(self, kind: str, index: int) -> None:
        told = self.watch.told[kind]
        if told:
            event, body = told[index % len(told)]
            self.tell(event, {**body, "metadata": dict(body["metadata"])})

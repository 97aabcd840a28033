"""Who of several operators works: the one that holds a Lease.

Times in the Lease are for people. Each operator judges by its own clock alone, by how long it has
seen the Lease stay as it is, so that clocks need not agree. A holder believes in itself for less
time than the others wait, counted from before it asked: at no moment do two believe so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from finetune_operator.cluster.api import ApiError, Unreachable
from finetune_operator.cluster.clock import boot_clock
from finetune_operator.job.names import Object
from finetune_operator.job.resources import LEASE

log = logging.getLogger(__name__)

HOLD_SECONDS = 12.0  # a Lease that stays as it is so long may be taken
RENEW_SECONDS = 8.0  # a holder that could not renew for so long stops
RETRY_SECONDS = 2.0
_READY_SECONDS = 0.1
_NEVER = float("-inf")
_MOST_TRANSITIONS = 2**31 - 1  # an API server takes no more


class Leases(Protocol):
    """What an election asks of an API server; every method raises ApiError or Unreachable."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none."""

    async def create(self, body: Object) -> Object:
        """Create and return what was stored. ApiError 409 AlreadyExists if the name is taken."""

    async def replace(self, body: Object) -> Object:
        """Replace and return what was stored. ApiError 409 Conflict if it is not the newest."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass
class Candidate:
    """What one operator believes. Pure: every time is an argument, by one clock of its own."""

    namespace: str
    name: str
    identity: str
    _seen: Any = field(default=(), init=False)  # what changes with each renewal
    _since: float = field(default=_NEVER, init=False)
    _until: float = field(default=_NEVER, init=False)
    _renewed: datetime = field(default=datetime.min.replace(tzinfo=UTC), init=False)

    def leads(self, now: float) -> bool:
        """Tell whether this operator may write."""
        return now < self._until

    def claim(self, lease: Object | None, now: float, today: datetime) -> Object | None:
        """Take in the Lease as it was read; return what to write, None to wait."""
        self._see(lease, now)
        holder = _holder(lease)
        if holder != self.identity:
            self._until = _NEVER
        unchanged = now - self._since >= HOLD_SECONDS
        free = lease is not None and holder == ""
        if not (holder == self.identity or free or unchanged):
            return None
        return self._claimed(lease, today)

    def won(self, answer: Object, sent: float, now: float) -> None:
        """Take in that the Lease is this operator's, by a request sent at `sent`."""
        self._see(answer, now)
        self._until = sent + RENEW_SECONDS

    def resign(self) -> None:
        """Lead no longer."""
        self._until = _NEVER

    def handed_over(self, lease: Object | None) -> Object | None:
        """Return the Lease so that another need not wait; None if it is not this operator's."""
        if lease is None or _holder(lease) != self.identity:
            return None
        return {**lease, "spec": {**lease["spec"], "holderIdentity": ""}}

    def _see(self, lease: Object | None, now: float) -> None:
        record = lease and (lease["metadata"]["uid"], lease.get("spec"))
        if record != self._seen:
            self._seen, self._since = record, now

    def _claimed(self, lease: Object | None, today: datetime) -> Object:
        # Two renewals never look the same, whatever the clock does: others go by what changes.
        self._renewed = max(today, self._renewed + timedelta(microseconds=1))
        stamp = self._renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        known = (lease or {}).get("spec") or {}
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(HOLD_SECONDS),
            "acquireTime": known.get("acquireTime", stamp),
            "renewTime": stamp,
            "leaseTransitions": known.get("leaseTransitions", 0),
        }
        if _holder(lease) != self.identity:
            spec["acquireTime"] = stamp
            spec["leaseTransitions"] = min(_MOST_TRANSITIONS, spec["leaseTransitions"] + 1)
        base = lease or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": LEASE,
            "metadata": {"name": self.name, "namespace": self.namespace},
        }
        return {**base, "spec": spec}


class Election:
    """Stands for election and renews; `api` is a client that nothing else keeps waiting."""

    def __init__(
        self,
        api: Leases,
        candidate: Candidate,
        clock: Callable[[], float] = boot_clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._candidate = candidate
        self._clock = clock
        self._sleep = sleep

    def leads(self) -> bool:
        """Tell whether this operator may write, at this moment."""
        return self._candidate.leads(self._clock())

    async def run(self, ready: Callable[[], bool], elected: Callable[[], None]) -> None:
        """Stand once `ready`, until cancelled; `elected` is called whenever this one did not lead
        and does now."""
        while not ready():
            await self._sleep(_READY_SECONDS)
        while True:
            try:
                await self._turn(elected)
            except (ApiError, Unreachable) as error:
                log.warning("the Lease of operators: %s", error)
            await self._sleep(RETRY_SECONDS)

    async def leave(self) -> None:
        """Hand the Lease over, once nothing else of this operator writes any more."""
        self._candidate.resign()
        try:
            lease = self._candidate.handed_over(await self._read())
            if lease is not None:
                await self._api.replace(lease)
        except (ApiError, Unreachable) as error:
            log.info("the Lease was not handed over: %s", error)
        finally:
            await self._api.close()

    async def _turn(self, elected: Callable[[], None]) -> None:
        led = self.leads()
        lease = await self._read()
        claim = self._candidate.claim(lease, self._clock(), datetime.now(UTC))
        if led and claim is None:
            log.warning("another operator leads")
        if claim is None:
            return
        sent = self._clock()
        answer = await (self._api.create if lease is None else self._api.replace)(claim)
        led = self.leads()
        self._candidate.won(answer, sent, self._clock())
        if not led:
            log.info("this operator leads")
            elected()

    async def _read(self) -> Object | None:
        return await self._api.get(LEASE, self._candidate.namespace, self._candidate.name)


def _holder(lease: Object | None) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")

"""Who is elected is told so once, who is cut off leads no longer, and who leaves hands over."""

import asyncio
from typing import Any

import pytest

from finetune_operator.cluster.api import Unreachable
from finetune_operator.cluster.election import (
    HOLD_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    Candidate,
    Election,
)
from support.operator.model.leases import LeaseServer

Json = Any


def nothing() -> None:
    pass


class Api:
    """The Lease over a network that a test breaks."""

    def __init__(self, server: LeaseServer) -> None:
        self.server = server
        self.away = False
        self.closed = False
        self.meanwhile: Any = nothing

    async def get(self, kind: str, namespace: str, name: str) -> Json:
        self.meanwhile()
        assert (kind, namespace, name) == ("Lease", "system", "lead")
        if self.away:
            raise Unreachable("away")
        return self.server.get()

    async def create(self, body: Json) -> Json:
        assert self.server.lease is None
        return self.server.write(body)

    async def replace(self, body: Json) -> Json:
        return self.server.write(body)

    async def close(self) -> None:
        self.closed = True


class Elected:
    """An election by a clock that moves only while it sleeps."""

    def __init__(self, server: LeaseServer, identity: str = "a") -> None:
        self.now, self.times = 0.0, 0
        self.api = Api(server)
        candidate = Candidate("system", "lead", identity)
        self.election = Election(self.api, candidate, lambda: self.now, self._sleep)
        self.script: list[Any] = []
        self.ready = True

    async def _sleep(self, seconds: float) -> None:
        assert seconds == (RETRY_SECONDS if self.ready else 0.1)
        self.now += seconds
        if not self.script:
            raise asyncio.CancelledError
        self.script.pop(0)()

    async def run(self, *script: Any) -> None:
        self.script = list(script)
        with pytest.raises(asyncio.CancelledError):
            await self.election.run(lambda: self.ready, self._elected)

    def _elected(self) -> None:
        assert self.election.leads()
        self.times += 1


LONG = [nothing] * 8


async def test_it_is_told_once_that_it_was_elected() -> None:
    one = Elected(LeaseServer())
    await one.run(*LONG)
    assert one.times == 1
    assert one.election.leads()


async def test_nobody_stands_before_it_is_ready() -> None:
    one = Elected(LeaseServer())
    one.ready = False
    await one.run(*[nothing] * 200)
    assert one.now > HOLD_SECONDS
    assert one.api.server.lease is None
    one.ready = True
    await one.run(*LONG)
    assert one.times == 1


async def test_who_was_cut_off_is_told_anew_when_it_leads_again() -> None:
    one = Elected(LeaseServer())
    led: list[bool] = []

    def cut(away: bool) -> None:
        led.append(one.election.leads())
        one.api.away = away

    def away() -> None:
        cut(True)

    await one.run(*LONG, away, away, away, away, away, lambda: cut(False), nothing)
    assert led == [True, True, True, False, False, False]
    assert one.times == 2, "what was not done meanwhile would not be looked at"


async def test_a_machine_that_slept_is_told_anew_though_nobody_took_its_place() -> None:
    one = Elected(LeaseServer())

    def sleep() -> None:
        one.now += 3600
        assert not one.election.leads()

    await one.run(*LONG, sleep, nothing)
    assert one.times == 2


async def test_a_read_that_took_too_long_costs_the_lead_for_a_moment() -> None:
    one = Elected(LeaseServer())

    def slow() -> None:
        one.now += RENEW_SECONDS

    def slow_reads() -> None:
        one.api.meanwhile = slow

    await one.run(*LONG, slow_reads, nothing)
    assert one.election.leads()
    assert one.times > 1


async def test_who_leaves_hands_over_and_the_next_need_not_wait() -> None:
    server = LeaseServer()
    one, two = Elected(server, "a"), Elected(server, "b")
    await one.run(*LONG)
    await two.run()
    assert not two.election.leads()
    await one.election.leave()
    assert not one.election.leads()
    assert one.api.closed
    await two.run()
    assert two.election.leads()


async def test_who_leaves_late_takes_nothing_from_another() -> None:
    server = LeaseServer()
    one, two = Elected(server, "a"), Elected(server, "b")
    await one.run(*LONG)
    await two.run(*LONG)
    assert two.election.leads()
    await one.election.leave()
    assert server.lease["spec"]["holderIdentity"] == "b"


async def test_an_api_server_that_is_away_keeps_nobody_from_leaving() -> None:
    one = Elected(LeaseServer())
    await one.run(*LONG)
    one.api.away = True
    await one.election.leave()
    assert not one.election.leads()
    assert one.api.closed

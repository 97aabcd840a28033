"""Of several operators one works, whatever their clocks, the network and their machines do."""

import asyncio
import contextlib
import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.cluster.api import ApiError, Unreachable
from finetune_operator.cluster.election import (
    HOLD_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    Candidate,
    Election,
)

Json = Any
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAILOVER_SECONDS = 20


@dataclass
class Server:
    """One Lease, as an API server keeps it: a write that changes nothing makes no new version."""

    lease: Json = None
    version: int = 0

    def get(self) -> Json:
        return copy.deepcopy(self.lease)

    def write(self, body: Json) -> Json:
        metadata, known = body["metadata"], self.lease
        if known is None and "uid" in metadata:
            raise ApiError(404, "NotFound", "gone")
        if known is not None and "uid" not in metadata:
            raise ApiError(409, "AlreadyExists", "there already")
        if (
            known is not None
            and metadata["resourceVersion"] != known["metadata"]["resourceVersion"]
        ):
            raise ApiError(409, "Conflict", "modified")
        if known is None or known["spec"] != body["spec"]:
            self.version += 1
            uid = known["metadata"]["uid"] if known else f"uid-{self.version}"
            metadata = {**metadata, "uid": uid, "resourceVersion": str(self.version)}
            self.lease = copy.deepcopy({**body, "metadata": metadata})
        return self.get()

    def touch(self) -> None:
        """A stranger writes something beside the record."""
        if self.lease is not None:
            self.version += 1
            self.lease["metadata"]["resourceVersion"] = str(self.version)


@dataclass
class Operator:
    """A candidate whose requests and answers are on the way for as long as a schedule says."""

    server: Server
    candidate: Candidate
    skew: float  # of its own clock
    today: datetime  # and of the calendar's, which may stand still
    read: list[Json] = field(default_factory=list)  # answers to reads, on the way
    sent: list[tuple[Json, float]] = field(default_factory=list)  # writes, on the way
    told: list[tuple[Json, float]] = field(default_factory=list)  # answers to writes, on the way

    def act(self, what: str, now: float) -> None:
        mine = now + self.skew
        if what == "read":
            self.read.append(self.server.get())
        elif what == "claim" and self.read:
            claim = self.candidate.claim(self.read.pop(0), mine, self.today)
            self.sent += [(claim, mine)] if claim else []
        elif what == "arrive" and self.sent:
            claim, at = self.sent.pop(0)
            with contextlib.suppress(ApiError):
                self.told.append((self.server.write(claim), at))
        elif what == "won" and self.told:
            answer, at = self.told.pop(0)
            self.candidate.won(answer, at, mine)
        elif what == "lose answers":
            self.told.clear()
            self.read.clear()
        elif what == "turn":
            for step in ("read", "claim", "arrive", "won"):
                self.act(step, now)

    def leads(self, now: float) -> bool:
        return self.candidate.leads(now + self.skew)


STEPS = ["read", "claim", "arrive", "won", "lose answers", "turn", "turn"]
MOVES = st.tuples(
    st.integers(0, 2),
    st.sampled_from(STEPS),
    st.sampled_from([0.0, 0.0, 0.5, 2.0, 3.5, 7.0, 12.0]),  # seconds before it
    st.sampled_from([-3600, 0, 0, 1]),  # seconds by which the actor's calendar moves
)


def operators(server: Server) -> list[Operator]:
    return [
        Operator(
            server,
            Candidate("system", "lead", f"operator-{n}"),
            skew=(0.0, -1e6, 86400.0)[n],
            today=NOON + timedelta(minutes=15 * n),
        )
        for n in range(3)
    ]


def with_a_leader(server: Server) -> tuple[list[Operator], float]:
    """Operators of which the first has just been elected, and the time."""
    actors, now = operators(server), 0.0
    while not actors[0].leads(now):
        now += RETRY_SECONDS
        actors[0].act("turn", now)
    for actor in actors[1:]:
        actor.act("turn", now)
    return actors, now


@given(st.lists(MOVES, max_size=60), st.booleans())
def test_never_do_two_believe_that_they_lead(schedule: list[Any], touched: bool) -> None:
    server = Server()
    actors, now = with_a_leader(server)
    for who, what, pause, calendar in schedule:
        now += pause
        actors[who].today += timedelta(seconds=calendar)
        actors[who].act(what, now)
        if touched:
            server.touch()
        assert sum(actor.leads(now) for actor in actors) <= 1


@given(st.lists(MOVES, max_size=30), st.integers(0, 2), st.booleans())
def test_whoever_is_left_leads_in_time(schedule: list[Any], dead: int, touched: bool) -> None:
    server = Server()
    actors, now = with_a_leader(server)
    for who, what, pause, _ in schedule:
        now += pause
        actors[who].act(what, now)
    left = [actor for n, actor in enumerate(actors) if n != dead]
    died = now
    for actor in left:
        actor.act("lose answers", now)
        actor.sent.clear()
    while not any(actor.leads(now) for actor in left):
        now += RETRY_SECONDS
        for actor in left:
            actor.act("turn", now)
        if touched:
            server.touch()
        assert now - died <= FAILOVER_SECONDS - 2 * RETRY_SECONDS


def test_who_leads_goes_on_leading() -> None:
    server = Server()
    (first, second, _), now = with_a_leader(server)
    acquired = server.lease["spec"]["acquireTime"]
    for _ in range(100):
        now += RETRY_SECONDS
        second.act("turn", now)
        first.act("turn", now)
        assert first.leads(now + RENEW_SECONDS - 0.001)
        assert not first.leads(now + RENEW_SECONDS)
    spec = server.lease["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("operator-0", 1)
    assert spec["acquireTime"] == acquired < spec["renewTime"]
    assert spec["leaseDurationSeconds"] == HOLD_SECONDS


def test_a_lease_that_someone_deletes_is_not_up_for_grabs() -> None:
    server = Server()
    (first, second, _), now = with_a_leader(server)
    server.lease = None
    while first.leads(now):
        second.act("turn", now)
        assert not second.leads(now)
        now += RETRY_SECONDS
    while not second.leads(now):
        second.act("turn", now)
        now += RETRY_SECONDS
    assert server.lease["spec"]["holderIdentity"] == "operator-1"


def test_an_answer_that_comes_late_makes_nobody_lead() -> None:
    server = Server()
    (first, second, _), now = with_a_leader(server)
    for step in ("read", "claim", "arrive"):
        first.act(step, now)
    second.act("turn", now)
    second.act("turn", now + HOLD_SECONDS)
    assert second.leads(now + HOLD_SECONDS)
    first.act("won", now + HOLD_SECONDS)
    assert not first.leads(now + HOLD_SECONDS)


def test_who_finds_another_in_its_place_stops_at_once() -> None:
    server = Server()
    (first, *_), now = with_a_leader(server)
    server.lease["spec"]["holderIdentity"] = "by hand"
    server.touch()
    first.act("turn", now)
    assert not first.leads(now)


def nothing() -> None:
    pass


class Api:
    """The Lease over a network that a test breaks."""

    def __init__(self, server: Server) -> None:
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

    def __init__(self, server: Server, identity: str = "a") -> None:
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
    one = Elected(Server())
    await one.run(*LONG)
    assert one.times == 1
    assert one.election.leads()


async def test_nobody_stands_before_it_is_ready() -> None:
    one = Elected(Server())
    one.ready = False
    await one.run(*[nothing] * 200)
    assert one.now > HOLD_SECONDS
    assert one.api.server.lease is None
    one.ready = True
    await one.run(*LONG)
    assert one.times == 1


async def test_who_was_cut_off_is_told_anew_when_it_leads_again() -> None:
    one = Elected(Server())
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
    one = Elected(Server())

    def sleep() -> None:
        one.now += 3600
        assert not one.election.leads()

    await one.run(*LONG, sleep, nothing)
    assert one.times == 2


async def test_a_read_that_took_too_long_costs_the_lead_for_a_moment() -> None:
    one = Elected(Server())

    def slow() -> None:
        one.now += RENEW_SECONDS

    def slow_reads() -> None:
        one.api.meanwhile = slow

    await one.run(*LONG, slow_reads, nothing)
    assert one.election.leads()
    assert one.times > 1


async def test_who_leaves_hands_over_and_the_next_need_not_wait() -> None:
    server = Server()
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
    server = Server()
    one, two = Elected(server, "a"), Elected(server, "b")
    await one.run(*LONG)
    await two.run(*LONG)
    assert two.election.leads()
    await one.election.leave()
    assert server.lease["spec"]["holderIdentity"] == "b"


async def test_an_api_server_that_is_away_keeps_nobody_from_leaving() -> None:
    one = Elected(Server())
    await one.run(*LONG)
    one.api.away = True
    await one.election.leave()
    assert not one.election.leads()
    assert one.api.closed

"""Never do two operators believe that they lead, whatever clocks, network and machines do."""

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.cluster.api import ApiError
from finetune_operator.cluster.election import (
    HOLD_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    Candidate,
)
from support.operator.model.leases import LeaseServer

Json = Any
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAILOVER_SECONDS = 20


@dataclass
class Operator:
    """A candidate whose requests and answers are on the way for as long as a schedule says."""

    server: LeaseServer
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


def operators(server: LeaseServer) -> list[Operator]:
    return [
        Operator(
            server,
            Candidate("system", "lead", f"operator-{n}"),
            skew=(0.0, -1e6, 86400.0)[n],
            today=NOON + timedelta(minutes=15 * n),
        )
        for n in range(3)
    ]


def with_a_leader(server: LeaseServer) -> tuple[list[Operator], float]:
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
    server = LeaseServer()
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
    server = LeaseServer()
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
    server = LeaseServer()
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
    server = LeaseServer()
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


def test_a_lease_that_someone_filled_to_its_bounds_is_taken_all_the_same() -> None:
    candidate, most = Candidate("team", "operators", "operator-0"), 2**31 - 1
    spec = {"holderIdentity": "x" * 4_000, "leaseTransitions": most, "leaseDurationSeconds": most}
    lease = {"metadata": {"uid": "u"}, "spec": spec}
    assert candidate.claim(lease, 0, NOON) is None
    claim = candidate.claim(lease, HOLD_SECONDS, NOON)
    assert claim is not None
    assert (claim["spec"]["holderIdentity"], claim["spec"]["leaseTransitions"]) == (
        "operator-0",
        most,
    )


def test_an_answer_that_comes_late_makes_nobody_lead() -> None:
    server = LeaseServer()
    (first, second, _), now = with_a_leader(server)
    for step in ("read", "claim", "arrive"):
        first.act(step, now)
    second.act("turn", now)
    second.act("turn", now + HOLD_SECONDS)
    assert second.leads(now + HOLD_SECONDS)
    first.act("won", now + HOLD_SECONDS)
    assert not first.leads(now + HOLD_SECONDS)


def test_who_finds_another_in_its_place_stops_at_once() -> None:
    server = LeaseServer()
    (first, *_), now = with_a_leader(server)
    server.lease["spec"]["holderIdentity"] = "by hand"
    server.touch()
    first.act("turn", now)
    assert not first.leads(now)

"""How long a circuit breaker waits, and for what: by a clock that nobody waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

import pytest

from finetune_rewards.scores.errors import RewardUnavailable
from finetune_rewards.services.circuit import MOST_REFUSALS, Unanswered, Waits
from support.rewards.frail_service import Service


@dataclass
class Clock:
    """Time that passes only where somebody waits for it; chance falls on one side."""

    jitter: Literal["least", "most"] = "most"
    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def read(self) -> float:
        self.now += 1e-9  # no two moments are alike
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds
        await asyncio.sleep(0)

    def uniform(self, least: float, most: float) -> float:
        return least if self.jitter == "least" else most

    @property
    def waits(self) -> Waits:
        """Return those of 1, 2, 4, ... seconds that nobody waits for."""
        return Waits(1.0, 8.0, 1.0, 32.0, self.read, self.sleep, self.uniform)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_waits_for_a_request_grow_and_go_on_growing_while_the_service_is_busy(
    clock: Clock,
) -> None:
    service = Service(refuses="x")
    asked = service.circuit(clock.waits, retries=1)
    await asked.ask("a")
    with pytest.raises(Unanswered):
        await asked.ask("x")
    assert clock.slept == [1.0, 2.0, 4.0, *[8.0] * (2 * MOST_REFUSALS - 4)]


async def test_what_an_outage_held_up_is_sent_at_once_when_it_is_over(clock: Clock) -> None:
    service = Service()
    asked = service.circuit(clock.waits, retries=0)
    await asked.ask("a")
    service.down_for = 3
    assert await asked.ask("b") == "B"
    assert clock.slept == [1.0, 2.0]  # before the second probe and the third


@pytest.mark.parametrize(("busy", "longest"), [(False, 32.0), (True, 8.0)])
async def test_probes_come_less_and_less_often(busy: bool, longest: float, clock: Clock) -> None:
    service = Service()
    asked = service.circuit(clock.waits, retries=0, pause_seconds=1000.0)
    await asked.ask("a")
    if busy:
        service.busy_for = 10
    else:
        service.down_for = 10
    assert await asked.ask("b") == "B"
    probing = clock.slept[:9]
    assert probing == [min(2.0**n, longest) for n in range(9)]


async def test_chance_halves_the_time_between_probes_at_most(clock: Clock) -> None:
    clock.jitter = "least"
    service = Service()
    asked = service.circuit(clock.waits, retries=0)
    await asked.ask("a")
    service.down_for = 3
    assert await asked.ask("b") == "B"
    assert clock.slept == [0.5, 1.0]


@pytest.mark.parametrize("jitter", ["least", "most"])
async def test_a_wish_is_granted_between_retries_and_between_probes(
    jitter: Literal["least", "most"], clock: Clock
) -> None:
    class Wishing(Service):
        async def send(self, text: str) -> str:
            self.sent.append(text)
            if 1 < len(self.sent) < 5:
                raise Unanswered("later", retry_after=20.0)
            return text.upper()

    clock.jitter = jitter
    service = Wishing()
    asked = service.circuit(clock.waits, retries=1)
    await asked.ask("a")
    assert await asked.ask("b") == "B"
    assert service.sent == ["a", "b", "b", "a", "a", "b"]
    chance = 1.0 if jitter == "most" else 0.0  # so that not all come back at the same moment
    assert clock.slept == [20.0 + chance, 20.0]


async def test_the_run_waits_for_as_long_as_it_may_and_no_longer(clock: Clock) -> None:
    service = Service()
    asked = service.circuit(clock.waits, retries=0, pause_seconds=10.0)
    await asked.ask("a")
    service.down_for = 10**9
    with pytest.raises(RewardUnavailable, match=r"no answer for 10 s: down"):
        await asked.ask("b")
    assert clock.slept == [1.0, 2.0, 4.0, 3.0]


async def test_waits_have_a_bound_however_many_there_were(clock: Clock) -> None:
    service = Service(chokes="x")
    asked = service.circuit(clock.waits, retries=2000)
    await asked.ask("a")
    with pytest.raises(Unanswered):
        await asked.ask("x")
    assert clock.slept[-1] == 8.0
    assert len(clock.slept) == 2000

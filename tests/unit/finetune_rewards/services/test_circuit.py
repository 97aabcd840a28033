"""The circuit breaker: what is lost to an outage is sent again; what fells a service is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from finetune_rewards.scores.errors import RewardUnavailable
from finetune_rewards.services.circuit import MOST_OUTAGES, MOST_REFUSALS, Circuit, Unanswered
from support.rewards.frail_service import SHORT, Service


async def outcomes(asked: Circuit[str, str], texts: str) -> list[str]:
    answers = await asyncio.gather(*map(asked.ask, texts), return_exceptions=True)
    return [str(answer) for answer in answers]


async def test_retries_are_counted() -> None:
    service = Service(chokes="x")
    asked = service.circuit(retries=2)
    assert await asked.ask("a") == "A"
    with pytest.raises(Unanswered, match="choked"):
        await asked.ask("x")
    # Three tries, then the request that is known to be answered: the service is up.
    assert service.sent == ["a", "x", "x", "x", "a"]
    assert service.notes == []


async def test_one_probe_serves_all_that_wait_for_it() -> None:
    service = Service(chokes="xyz")
    asked = service.circuit(retries=0)
    await asked.ask("a")
    assert await outcomes(asked, "xyz") == ["choked"] * 3
    assert service.sent.count("a") == 2


async def test_an_outage_loses_nothing_and_excuses_nothing() -> None:
    service = Service(chokes="x")
    asked = service.circuit(retries=1)
    await asked.ask("a")
    service.down_for = 30
    assert await outcomes(asked, "bcxd") == ["B", "C", "choked", "D"]
    assert service.notes[-1] is None
    assert set(service.notes[:-1]) == {"waits for reward judge: down"}


async def test_each_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    asked = service.circuit(retries=0)
    await asked.ask("a")
    for outage in (1, 2):
        service.down_for = 10
        assert await asked.ask("b") == "B"
        assert caplog.messages == ["waits for reward judge: down"] * outage


async def test_nothing_passes_while_the_circuit_is_open() -> None:
    service = Service()
    asked = service.circuit(retries=0)
    await asked.ask("a")
    service.down_for = 40
    first = asyncio.create_task(asked.ask("b"))
    await service.noted.wait()
    before = len(service.sent)
    assert await outcomes(asked, "cde") == ["C", "D", "E"]
    assert await first == "B"
    held = service.sent[before : service.sent.index("c")]
    assert set(held) <= {"a", "b"}
    assert held.count("b") <= 1
    assert len(held) > 10


async def test_what_waits_for_its_turn_waits_while_the_circuit_is_open() -> None:
    service = Service()
    asked = service.circuit(at_once=1, retries=0)
    await asked.ask("a")
    service.down_for = 20
    assert await outcomes(asked, "bcdef") == ["B", "C", "D", "E", "F"]
    assert [service.sent.count(text) for text in "def"] == [1, 1, 1]


async def test_a_request_that_fells_the_service_ends_somewhen() -> None:
    service = Service(fells="x")
    asked = service.circuit(retries=0)
    await asked.ask("a")
    with pytest.raises(Unanswered):
        await asked.ask("x")
    assert service.sent.count("x") == MOST_OUTAGES
    assert await asked.ask("b") == "B"


async def test_a_service_that_is_new_is_found_by_whichever_request_it_answers() -> None:
    service = Service(chokes="x")
    asked = service.circuit(at_once=1, retries=0)
    assert await outcomes(asked, "xab") == ["choked", "A", "B"]


async def test_the_pause_has_an_end() -> None:
    service = Service()
    asked = service.circuit(pause_seconds=0.02)
    await asked.ask("a")
    service.down_for = 10**9
    with pytest.raises(RewardUnavailable, match=r"reward judge: no answer for 0\.02 s: down"):
        await asked.ask("b")


async def test_what_was_lost_before_the_first_answer_is_sent_again() -> None:
    service = Service()
    service.down_for = 3
    assert await outcomes(service.circuit(retries=0), "abc") == ["A", "B", "C"]


async def test_others_pass_until_a_service_has_answered_once() -> None:
    service = Service(chokes="x")
    asked = service.circuit(retries=0, pause_seconds=5.0)
    choking = asyncio.create_task(asked.ask("x"))
    await service.noted.wait()
    assert await asked.ask("a") == "A"
    with pytest.raises(Unanswered, match="choked"):
        await choking


async def test_a_full_service_is_no_fault_of_a_request() -> None:
    service = Service()
    service.room = 2
    asked = service.circuit(at_once=64, retries=0)
    texts = "abcdefghijklmnopqrstuvwxyz"
    assert await outcomes(asked, texts) == list(texts.upper())
    assert len(service.sent) > 2 * len(texts)


async def test_a_service_that_is_busy_for_all_holds_the_run() -> None:
    service = Service()
    asked = service.circuit(retries=1)
    await asked.ask("a")
    service.refuses = "ab"
    waiting = asyncio.create_task(asked.ask("b"))
    await service.noted.wait()
    assert service.notes == ["waits for reward judge: busy"]
    service.refuses = ""
    assert await waiting == "B"
    assert service.notes[-1] is None
    service.refuses = "ab"
    with pytest.raises(RewardUnavailable, match="busy"):
        await service.circuit(pause_seconds=0.02).ask("b")


async def test_a_busy_service_is_asked_again_soon() -> None:
    """Its places are free again long before a service that is down is asked for the tenth time."""
    service = Service()
    asked = service.circuit(replace(SHORT, longest_probe=10.0**6), retries=0)
    await asked.ask("a")
    service.busy_for = 40
    assert await asked.ask("b") == "B"


async def test_a_request_that_is_always_refused_ends_somewhen() -> None:
    """Two of them: the probes for the one do not keep the other waiting for ever."""
    service = Service(refuses="xy")
    asked = service.circuit(retries=1)
    assert await asked.ask("a") == "A"
    assert await outcomes(asked, "xy") == ["busy", "busy"]
    assert service.sent.count("x") == service.sent.count("y") == 2 * MOST_REFUSALS
    assert service.notes == []


async def test_a_request_that_chokes_is_at_fault_whoever_was_answered_meanwhile() -> None:
    service = Service(chokes="x")
    asked = service.circuit(retries=0)
    await asked.ask("a")
    assert await outcomes(asked, "bx") == ["B", "choked"]
    assert service.sent.count("x") == 1


async def test_refusals_count_only_while_no_other_request_is_answered() -> None:
    class Unfair(Service):
        """Busy for x, 3 * MOST_REFUSALS times; between some of them, b is answered."""

        async def send(self, text: str) -> str:
            tried = self.sent.count("x")
            if text != "x" or tried == 3 * MOST_REFUSALS:
                return await super().send(text)
            self.sent.append(text)
            if tried % 2:
                await asked.ask("b")
            raise Unanswered("busy", busy=True)

    service = Unfair()
    asked = service.circuit(retries=0)
    await asked.ask("a")
    assert await asked.ask("x") == "X"

"""How long a Lease has told nothing new is reckoned by the operator's own clock alone."""

from typing import Any

import pytest

from finetune_api.status import AttemptState, FineTuneJobStatus
from finetune_contract.progress import Phase, Progress
from finetune_operator.cluster.cache import Key
from finetune_operator.lookout import Lookout
from finetune_operator.observe.observed import Observed, Report, Standing
from support.operator.values import at, attempt, job


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lookout(clock: Clock) -> Lookout:
    return Lookout(clock)


def seen(renewal: str | None = "a", moves: int | None = 5, number: int = 1) -> Observed:
    told = Report(number, at(0), Progress(phase=Phase.TRAIN, moves=moves))
    return Observed(reports=(told,), renewals={} if renewal is None else {number: renewal})


def running(number: int = 1, uid: str = "job-uid", **fields: Any) -> Any:
    attempts = [attempt(n, **fields) for n in range(1, number + 1)]
    found = job(FineTuneJobStatus(attempts=attempts))
    return found.model_copy(update={"metadata": {**found.metadata, "uid": uid}})


def test_silence_grows_until_the_lease_changes(lookout: Lookout, clock: Clock) -> None:
    assert lookout.look(running(), seen("a")).standing == Standing(0, 0)
    clock.now += 40
    assert lookout.look(running(), seen("a")).standing == Standing(0, 40)
    clock.now += 2
    assert lookout.look(running(), seen("b", moves=6)).standing == Standing(0, 0)


def test_reports_of_no_move_are_stillness_up_to_the_last_of_them(
    lookout: Lookout, clock: Clock
) -> None:
    lookout.look(running(), seen("a"))
    clock.now += 15
    assert lookout.look(running(), seen("b")).standing == Standing(15, 0)
    clock.now += 15
    lookout.look(running(), seen("c"))
    clock.now += 5
    assert lookout.look(running(), seen("c")).standing == Standing(30, 5)
    assert lookout.look(running(), seen("d", moves=6)).standing == Standing(0, 0)


def test_a_trainer_that_counts_no_moves_is_never_known_to_stand_still(
    lookout: Lookout, clock: Clock
) -> None:
    lookout.look(running(), seen("a", moves=None))
    clock.now += 15
    assert lookout.look(running(), seen("b", moves=None)).standing == Standing(0, 0)


@pytest.mark.parametrize(
    "then",
    [running(2), running(uid="another")],
    ids=["the next attempt", "another job of the name"],
)
def test_what_was_seen_of_another_does_not_count(lookout: Lookout, clock: Clock, then: Any) -> None:
    number = len(then.status.attempts)
    lookout.look(running(), seen("a"))
    clock.now += 40
    assert lookout.look(then, seen("a", number=number)).standing == Standing(0, 0)


def test_the_watch_begins_when_all_pods_run(lookout: Lookout, clock: Clock) -> None:
    lookout.look(running(), seen())
    starting = running(state=AttemptState.STARTING)
    assert lookout.look(starting, seen()).standing is None
    clock.now += 40
    assert lookout.look(running(), seen()).standing == Standing(0, 0), "it began anew"


def test_a_job_that_is_forgotten_is_watched_anew(lookout: Lookout, clock: Clock) -> None:
    lookout.look(running(), seen())
    clock.now += 40
    lookout.forget(Key("team", "bot"))
    assert lookout.look(running(), seen()).standing == Standing(0, 0)


def test_a_lease_without_a_word_is_silent(lookout: Lookout, clock: Clock) -> None:
    lookout.look(running(), Observed())
    clock.now += 40
    assert lookout.look(running(), Observed()).standing == Standing(0, 40)

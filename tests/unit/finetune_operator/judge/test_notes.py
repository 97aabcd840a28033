"""What a trainer notes, and the rewards it tells of, stand in status; an Event tells of a note."""

from typing import Any

import pytest

from finetune_api.status import FineTuneJobStatus, ProgressStatus
from finetune_contract.progress import Phase, Progress, RewardProgress
from finetune_operator.events import transitions
from finetune_operator.judge.decide import decide
from finetune_operator.judge.status import status_of
from finetune_operator.observe.observed import Report
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.values import NOW, at, attempt, job, pod, seen

SETTINGS = Settings(trainer_image="t")
NOTE = "checkpoints fail: the store refused the credentials"


def shown(**fields: Any) -> ProgressStatus:
    report = Report(1, NOW, Progress(phase=Phase.TRAIN, **fields))
    of = job(FineTuneJobStatus(attempts=[attempt()]))
    observed = seen(pod(0), pod(1), reports=(report,))
    decision = decide(of, observed, at(1), SETTINGS, BACKEND, None)
    status = status_of(of, observed, decision, at(1), SETTINGS)
    assert status.progress is not None
    return status.progress


def noted(number: int, note: str | None) -> FineTuneJobStatus:
    progress = shown(note=note).model_copy(update={"attempt": number})
    return FineTuneJobStatus(progress=progress)


def events(old: FineTuneJobStatus, new: FineTuneJobStatus) -> list[tuple[bool, str, str]]:
    return [(t.warning, t.reason, t.message) for t in transitions(old, new)]


def test_the_note_stands_in_status() -> None:
    assert shown(note=NOTE).note == NOTE
    assert shown().note is None


def test_rewards_are_told_as_decimals() -> None:
    rewards = (
        RewardProgress(name="correct", mean=0.25, std=0.43301, seconds=1.26, errors=2),
        RewardProgress(name="judge"),
    )
    progress = shown(reward=-0.123456, rewards=rewards)
    assert progress.reward == "-0.1235"
    assert [r.model_dump(exclude_none=True) for r in progress.rewards or ()] == [
        {"name": "correct", "mean": "0.2500", "std": "0.4330", "seconds": "1.3", "errors": 2},
        {"name": "judge", "errors": 0},
    ]


def test_a_training_without_rewards_tells_of_none() -> None:
    told = shown().model_dump(exclude_none=True)
    assert not {"reward", "rewards", "note"} & set(told)


@pytest.mark.parametrize(
    "before", [FineTuneJobStatus(), noted(1, None), noted(1, "another"), noted(2, NOTE)]
)
def test_a_note_that_appears_is_told_by_an_event(before: FineTuneJobStatus) -> None:
    assert events(before, noted(1, NOTE)) == [(True, "AttemptNote", f"attempt 1: {NOTE}")]


@pytest.mark.parametrize("after", [noted(1, NOTE), noted(1, None), FineTuneJobStatus()])
def test_a_note_that_stays_or_goes_is_not(after: FineTuneJobStatus) -> None:
    assert events(noted(1, NOTE), after) == []

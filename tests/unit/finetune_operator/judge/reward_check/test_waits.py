"""What the trial of rewards waits for, and how long."""

from datetime import timedelta

import pytest

from finetune_api.status import FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Course
from finetune_operator.observe.observed import Obstacle
from finetune_operator.plan.backends import BACKEND
from support.operator.reward_trials import (
    SETTINGS,
    decided,
    deleted,
    digest,
    grpo,
    pod,
    record,
    seen,
    told,
)
from support.operator.values import at, stamp


def test_a_pod_that_runs_is_waited_for() -> None:
    of = grpo()
    decision = decided(of, seen(pod(of)), record(of, pod_uid=None))
    assert told(decision) == (Course.PROGRESSING, Reason.PENDING)
    assert decision.reward_check == record(of)
    assert decision.after == timedelta(seconds=3571), "nothing else is awaited"
    assert (deleted(decision), decision.run_check) == ([], False)
    assert decided(of, seen(pod(of, scheduled=None)), record(of)).after is None


def test_what_blocks_the_pod_is_told_and_not_for_ever() -> None:
    of = grpo()
    warning = 'MountVolume.SetUp failed for volume "x" : configmap "code" not found'
    waiting = pod(of, phase="Pending", running=False)
    observed = seen(waiting, warnings={"check": warning})
    decision = decided(of, observed, record(of))
    assert told(decision) == (Course.PROGRESSING, Reason.VOLUME_UNAVAILABLE)
    field = "spec.method.grpo.rewards[mine].python.configMap"
    assert f'ConfigMap "code", named by {field}, does not exist' in decision.verdict.message
    assert decided(of, observed, record(of), 58).after == timedelta(seconds=3)
    late = decided(of, observed, record(of), 61)
    assert told(late) == (Course.FAILED, Reason.START_TIMEOUT)
    assert deleted(late) == ["bot-rewards"]
    image = pod(of, phase="Pending", running=False, obstacle=Obstacle("ErrImagePull", "no image"))
    known = decided(of, seen(image), record(of), 4)
    assert told(known)[1] is Reason.IMAGE_UNAVAILABLE
    assert known.look == (), "what keeps it is known without its events"


def test_the_events_of_a_pod_that_does_not_start_are_read() -> None:
    of = grpo()
    waiting = pod(of, phase="Pending", running=False)
    early = decided(of, seen(waiting), record(of), 2)
    assert (early.look, early.after) == ((), timedelta(seconds=2))
    assert decided(of, seen(waiting), record(of), 4).look == ("check",)
    assert decided(of, seen(pod(of)), record(of)).look == ()


@pytest.mark.parametrize("running", [True, False])
def test_a_pod_that_is_deleted_is_not_waited_for(running: bool) -> None:
    of = grpo()
    phase = "Running" if running else "Pending"
    lost = decided(of, seen(pod(of, due=at(20), phase=phase, running=running)), record(of), 5)
    assert told(lost) == (Course.PROGRESSING, Reason.RETRYING)
    assert lost.reward_check is not None
    assert lost.reward_check.message == "bot-rewards was deleted"


@pytest.mark.parametrize("running", [True, False])
def test_a_pod_that_hangs_is_given_an_hour(running: bool) -> None:
    of = grpo()
    obstacle = None if running else Obstacle("ContainerCreating", "image trainer:1")
    hangs = pod(of, scheduled=at(5), running=running, obstacle=obstacle)
    known = record(of)
    waits = decided(of, seen(hangs), known, 3604)
    assert waits.after == timedelta(seconds=1)
    assert waits.reward_check == known
    over = decided(of, seen(hangs), known, 3605)
    assert told(over) == (Course.PROGRESSING, Reason.RETRYING)
    assert over.reward_check is not None
    message = "bot-rewards did not end within 3600 seconds"
    message += "" if running else ": ContainerCreating: image trainer:1"
    assert (over.reward_check.failures, over.reward_check.message) == (1, message)
    goes = decided(of, seen(hangs), over.reward_check, 3606)
    assert deleted(goes) == ["bot-rewards"]
    once = grpo(runPolicy={"maxAttempts": 1})
    last = decided(once, seen(pod(once, scheduled=at(5))), record(once), 3605)
    assert told(last) == (Course.FAILED, Reason.TRAINER_ERROR)
    assert deleted(last) == ["bot-rewards"]


def test_the_deadline_counts_the_check() -> None:
    of = grpo(runPolicy={"activeDeadlineSeconds": 30})
    waits = decided(of, seen(pod(of)), record(of), 29)
    assert waits.after == timedelta(seconds=1)
    late = decided(of, seen(pod(of)), record(of), 30)
    assert told(late) == (Course.FAILED, Reason.DEADLINE_EXCEEDED)
    assert deleted(late) == ["bot-rewards"]
    assert late.reward_check is not None
    assert late.reward_check.end_time == stamp(30)
    assert late.reward_check.message in late.verdict.message != ""


def test_a_deadline_that_is_lowered_while_the_check_pauses_leaves_its_end() -> None:
    of = grpo(runPolicy={"activeDeadlineSeconds": 20})
    late = decided(of, seen(), record(of, failures=1, end_time=stamp(30), message="lost"), 33)
    assert told(late) == (Course.FAILED, Reason.DEADLINE_EXCEEDED)
    assert late.reward_check is not None
    assert late.reward_check.end_time == stamp(30)
    assert late.reward_check.message.startswith("the attempts ran 20 seconds")


def test_the_deadline_counts_the_check_up_to_its_end() -> None:
    of = grpo(runPolicy={"activeDeadlineSeconds": 100})
    passed = record(of, state="Passed", end_time=stamp(20))
    started = decided(of, seen(), passed, 1000)
    assert started.run is not None
    going = of.model_copy(
        update={
            "status": FineTuneJobStatus(reward_check=passed, attempts=[started.run.model_copy()])
        }
    )
    soon = decide(going, seen(), at(1079), SETTINGS, BACKEND, digest(of))
    assert told(soon) == (Course.PROGRESSING, Reason.PENDING)
    late = decide(going, seen(), at(1080), SETTINGS, BACKEND, digest(of))
    assert late.attempts[0].reason == Reason.DEADLINE_EXCEEDED

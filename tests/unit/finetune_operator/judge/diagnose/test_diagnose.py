"""Each way in which pods end gets its reason, and the cause goes before its symptoms."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason
from finetune_operator.judge.diagnose import SETTLE, end_of, published
from finetune_operator.observe.observed import Child, Crashes, InitFailure, Observed, Report
from finetune_operator.plan.backends import BACKEND
from support.operator.values import (
    UID,
    at,
    attempt,
    ended,
    failure,
    job,
    pod,
    success,
)

WORKLOAD = Child("PyTorchJob", "bot-a1", "workload", UID, 1, False, workload=True)


def end(*pods: Any, seconds: float = 0, workload: Child | None = WORKLOAD, **of: Any) -> Any:
    children = (workload,) if workload else ()
    return end_of(job(), attempt(**of), Observed(children, pods), at(seconds), BACKEND.workload)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (ended(code=137, reason="OOMKilled"), Reason.OUT_OF_MEMORY),
        (ended(code=137, reason="Error"), Reason.RESULT_LOST),
        (ended(code=143), Reason.INTERRUPTED),
        (ended(code=20), Reason.OUT_OF_MEMORY),
        (ended(code=12), Reason.DATA_INVALID),
        (ended(code=1), Reason.TRAINER_ERROR),
        (ended(code=1, result=failure(Reason.NON_FINITE_LOSS)), Reason.NON_FINITE_LOSS),
        (ended(code=0, result=failure(Reason.SUPERSEDED)), Reason.SUPERSEDED),
        (ended(code=1, result=failure(Reason.PENDING)), Reason.TRAINER_ERROR),
        (ended(code=1, result=failure(Reason.UNSCHEDULABLE)), Reason.TRAINER_ERROR),
        (ended(code=1, reason="OOMKilled", result=failure(Reason.TRAINER_ERROR)), "OutOfMemory"),
        (ended(code=143, disrupted="preempted"), Reason.EVICTED),
        (pod(phase="Failed", running=False, reason="Evicted"), Reason.EVICTED),
        (pod(phase="Failed", running=False, message="no room"), Reason.EVICTED),
        (
            pod(phase="Failed", running=False, init_failure=InitFailure("init", 1, waited=True)),
            Reason.DISTRIBUTED_FAILURE,
        ),
        (
            pod(phase="Failed", running=False, init_failure=InitFailure("mesh", 1)),
            Reason.INIT_FAILED,
        ),
        (ended(code=0), Reason.RESULT_LOST),
        (ended(code=128, reason="StartError"), Reason.CONTAINER_REFUSED),
        (ended(code=127, reason="ContainerCannotRun"), Reason.CONTAINER_REFUSED),
        (ended(code=128), Reason.RESULT_LOST),
        (ended(code=0, result=success(number=2)), Reason.RESULT_LOST),
    ],
)
def test_a_pod_that_failed(made: Any, reason: Reason) -> None:
    assert end(made, pod(1), seconds=60).reason == reason


LOOPS = Crashes(3, 1, "Error", "No module named finetune_rewards")
BEFORE = "the reward runner of bot-a1-worker-0 ended 4 times before the first step"


@pytest.mark.parametrize(
    ("crashes", "reason", "words"),
    [
        (LOOPS, Reason.TRAINER_ERROR, f"{BEFORE}, with code 1: No module named finetune_rewards"),
        (replace(LOOPS, exit_code=10, words=""), "InvalidRunConfig", f"{BEFORE}, with code 10"),
        (replace(LOOPS, exit_code=0), Reason.TRAINER_ERROR, f"{BEFORE}, with code 0: No module"),
        (replace(LOOPS, exit_code=139), Reason.TRAINER_ERROR, f"{BEFORE}, with code 139: No mo"),
        (
            replace(LOOPS, exit_code=137, reason="OOMKilled"),
            Reason.REWARD_INVALID,
            f"{BEFORE}, killed at its memory limit: raise python.memory of the rewards",
        ),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_a_reward_runner_that_crashes_before_the_first_step(
    crashes: Crashes, reason: Reason, words: str, running: bool
) -> None:
    found = end(pod(), pod(1, running=running, runner_crashes=crashes))
    assert (found.reason, found.settled, found.absent) == (reason, True, False)
    assert found.message.startswith(words)


def test_a_reward_runner_is_waited_for_after_a_step_or_a_few_restarts() -> None:
    loops = pod(runner_crashes=LOOPS)
    assert end(pod(runner_crashes=replace(LOOPS, restarts=2))) is None
    seen = Observed((WORKLOAD,), (loops,))
    for progress, ends in [
        (Progress(phase=Phase.ROLLOUT, step=1), False),
        (Progress(phase=Phase.ROLLOUT, step=0), True),
        (Progress(phase=Phase.LOAD, step=7, resumed_step=7), True),
        (Progress(phase=Phase.ROLLOUT, step=8, resumed_step=7), False),
    ]:
        told = replace(seen, reports=(Report(1, at(0), progress),))
        assert (end_of(job(), attempt(), told, at(0), BACKEND.workload) is not None) is ends


def test_what_the_trainer_said_of_its_runner_goes_first() -> None:
    said = ended(code=30, result=failure(Reason.REWARD_INVALID), runner_crashes=LOOPS)
    assert end(said).reason == Reason.REWARD_INVALID


def test_the_trainers_end_is_its_pods_end_whatever_else_runs_there() -> None:
    """A sidecar that a mesh puts into the pod never ends by itself."""
    said = replace(ended(code=12, result=failure(Reason.DATA_INVALID)), phase="Running")
    assert end(said, pod(1)).reason == Reason.DATA_INVALID
    left = replace(ended(0, 23), phase="Running")
    assert not end(left, pod(1), seconds=1).settled
    assert end(left, replace(ended(1, 23), phase="Running"), seconds=1).settled
    well = replace(ended(1, 0), phase="Running")
    assert end(pod(), well, pod_uids=["pod-0", "pod-1"]) is None
    published_by = replace(ended(0, 0, result=success()), phase="Running")
    assert published(job(), attempt(), [published_by]) is not None


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (ended(disrupted="preempted", message="m", reason="x"), "bot-a1-master-0: preempted"),
        (
            pod(phase="Failed", running=False, reason="Evicted", message="disk pressure"),
            "bot-a1-master-0: disk pressure",
        ),
        (pod(phase="Failed", running=False, reason="Evicted"), "bot-a1-master-0: Evicted"),
        (
            pod(phase="Failed", running=False, reason="OutOfcpu", message="no room"),
            "bot-a1-master-0 was refused by its node: no room",
        ),
        (
            pod(phase="Failed", running=False, reason="OutOfcpu"),
            "bot-a1-master-0 was refused by its node: OutOfcpu",
        ),
        (
            pod(phase="Failed", running=False),
            "bot-a1-master-0 was refused by its node: it never ran",
        ),
        (ended(1, 0, disrupted="preempted"), None),
    ],
)
def test_what_the_cluster_says_is_passed_on(made: Any, message: str | None) -> None:
    found = end(made, seconds=60)
    assert (found.message if found else None) == message


def test_a_pod_of_the_recorded_run_that_ended_badly_and_went_is_lost_even_if_nobody_failed() -> (
    None
):
    quiet = replace(ended(1, 0), gone=True, end=None)
    assert end(pod(0), quiet, pod_uids=["pod-0", "pod-1"]).reason == Reason.POD_LOST


def test_what_the_trainer_says_is_passed_on() -> None:
    told = failure(Reason.DATA_INVALID, "line 7: no turn", rank=3, frames=("a.py:1 f", "b.py:2 g"))
    found = end(ended(code=12, result=told), seconds=60)
    assert found.message == "bot-a1-master-0: line 7: no turn (at b.py:2 g)"
    assert found.rank == 3


def test_a_result_of_another_attempt_is_nobodys() -> None:
    told = failure(Reason.DATA_INVALID).model_copy(update={"attempt": 2})
    assert end(ended(code=137, result=told), seconds=60).reason == Reason.RESULT_LOST


def test_a_cause_goes_before_an_earlier_symptom() -> None:
    symptom = ended(0, 23, seconds=1)
    cause = ended(1, 137, seconds=5, reason="OOMKilled")
    assert end(symptom, cause, seconds=60).reason == Reason.OUT_OF_MEMORY


def test_of_two_causes_the_first_counts() -> None:
    early, late = ended(1, 12, seconds=1), ended(0, 18, seconds=2)
    assert end(late, early, seconds=60).reason == Reason.DATA_INVALID


def test_of_symptoms_in_one_second_the_nearest_to_the_cause_counts() -> None:
    told = ended(0, 24, result=failure(Reason.INTERRUPTED))
    killed = ended(1, 137)
    peer = ended(2, 23, result=failure(Reason.DISTRIBUTED_FAILURE))
    assert end(told, killed, peer, seconds=60).reason == Reason.RESULT_LOST
    assert end(peer, told, seconds=60).reason == Reason.INTERRUPTED
    later = ended(1, 137, seconds=1)
    assert end(told, later, seconds=60).reason == Reason.INTERRUPTED


@pytest.mark.parametrize(("seconds", "settled"), [(9, False), (10, True), (-11, True)])
def test_a_symptom_waits_for_its_cause_but_not_for_ever(seconds: int, settled: bool) -> None:
    assert SETTLE.total_seconds() == 10
    assert end(ended(0, 23), pod(1), seconds=seconds).settled is settled


def test_a_symptom_waits_for_nobody_if_all_have_ended() -> None:
    assert end(ended(0, 23), ended(1, 23), seconds=1).settled


def test_a_cause_does_not_wait() -> None:
    assert end(ended(0, 12), pod(1), seconds=1).settled


def test_a_run_that_goes_on_has_no_end() -> None:
    assert end(pod(0), pod(1), pod_uids=["pod-0", "pod-1"]) is None
    assert end(ended(1, 0), pod(0), pod_uids=["pod-0", "pod-1"]) is None


@pytest.mark.parametrize(
    ("pods", "lost"),
    [
        ([pod(0)], "pod-1 vanished"),
        ([pod(0), pod(1, gone=True)], "bot-a1-worker-0 was deleted"),
        ([pod(0), pod(1, uid="new")], "bot-a1-worker-0 was replaced"),
        ([pod(0), replace(ended(1, 0), gone=True)], None),
    ],
)
def test_pods_once_recorded_are_the_run(pods: Any, lost: str | None) -> None:
    found = end(*pods, pod_uids=["pod-0", "pod-1"])
    assert (found is None) == (lost is None)
    if lost:
        assert (found.reason, found.absent) == (Reason.POD_LOST, True)
        assert lost in found.message


def test_pods_may_come_and_go_until_all_were_seen() -> None:
    assert end(pod(0), pod_uids=None) is None


def test_the_last_words_of_a_deleted_pod_count() -> None:
    gone = replace(ended(1, 137, reason="OOMKilled"), gone=True)
    assert end(pod(0), gone, pod_uids=["pod-0", "pod-1"]).reason == Reason.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("workload", "uid", "pods", "lost"),
    [
        (None, "workload", [], True),
        (None, None, [pod(0)], True),
        (None, None, [], False),
        (WORKLOAD, "workload", [], False),
        (WORKLOAD, None, [], False),
        (WORKLOAD, "another", [], True),
        (replace(WORKLOAD, deleting=True), "workload", [], True),
        (replace(WORKLOAD, owner_uid="another"), "workload", [], True),
        (replace(WORKLOAD, attempt=2), "workload", [], True),
    ],
)
def test_a_workload_that_was_made_and_is_gone(
    workload: Any, uid: str | None, pods: Any, lost: bool
) -> None:
    found = end(*pods, workload=workload, workload_uid=uid)
    assert (found is not None) is lost
    if lost:
        assert (found.reason, found.absent) == (Reason.POD_LOST, True)


@pytest.mark.parametrize("outcome", [True, False])
def test_a_workload_that_ended_without_a_word(outcome: bool) -> None:
    found = end(workload=replace(WORKLOAD, outcome=outcome))
    assert (found.reason, found.absent) == (Reason.RESULT_LOST, True)


@pytest.mark.parametrize(
    ("made", "accepted"),
    [
        (ended(0, 0, result=success()), True),
        (replace(ended(0, 0, result=success()), gone=True), True),
        (ended(1, 0, result=success()), False),
        (ended(0, 0, result=success(number=2)), False),
        (ended(0, 0, result=success("s3://adapters/bottom/a1")), False),
        (ended(0, 0, result=success().model_copy(update={"artifact": None})), False),
        (ended(0, 1, result=failure(Reason.TRAINER_ERROR)), False),
        (pod(0), False),
    ],
)
def test_only_rank_0_of_this_attempt_tells_of_an_artifact(made: Any, accepted: bool) -> None:
    assert (published(job(), attempt(), [made]) is not None) is accepted


def test_an_end_names_the_secret_that_the_trainer_knows_by_its_field() -> None:
    said = "the store refused the keys of the Secret of spec.output.credentialsSecretRef"
    refused = ended(code=16, result=failure(Reason.ACCESS_DENIED, said))
    output = {"uri": "s3://adapters/bot/", "credentialsSecretRef": {"name": "bucket-keys"}}
    seen = Observed((WORKLOAD,), (refused,))
    found = end_of(job(output=output), attempt(), seen, at(0), BACKEND.workload)
    assert found is not None
    assert found.message == f'bot-a1-master-0: {said} ("bucket-keys")'

"""A pod that is taken away tells by whom, while it still goes; its peers' ends follow from it."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.reasons import TABLE, Reason, Retry
from finetune_operator.judge.diagnose import end_of
from finetune_operator.judge.pod_end import End
from finetune_operator.observe.observed import InitFailure, Obstacle
from finetune_operator.plan.backends import BACKEND
from support.operator.decisions import WORKLOAD
from support.operator.values import at, attempt, ended, failure, job, pod, seen, stamp

# What a DisruptionTarget of Kubernetes says, by whoever sets it.
DISRUPTIONS = {
    "EvictionByEvictionAPI": ("Eviction API: evicting", Reason.EVICTED),
    "TerminationByKubelet": ("The node was low on resource: memory.", Reason.EVICTED),
    "PreemptionByScheduler": ("default-scheduler: preempting to accommodate", Reason.PREEMPTED),
    "DeletionByTaintManager": ("Taint manager: deleting due to NoExecute", Reason.NODE_LOST),
    "DeletionByPodGC": ("PodGC: node no longer exists", Reason.NODE_LOST),
}
FAILED = replace(WORKLOAD, outcome=False)


def end(*pods: Any, seconds: float = 60) -> End | None:
    """How attempt 1 ended; training-operator failed its PyTorchJob at once."""
    observed = seen(*pods, children=(FAILED,))
    return end_of(job(), attempt(), observed, at(seconds), BACKEND.workload)


def going(rank: int = 0, deleted: float = 0, **fields: Any) -> Any:
    return pod(rank, due=at(deleted + 120), deleted=at(deleted), **fields)


@pytest.mark.parametrize("by", DISRUPTIONS)
def test_whoever_takes_a_running_pod_away_is_named_while_it_still_goes(by: str) -> None:
    words, reason = DISRUPTIONS[by]
    taken = going(1, disrupted=words, disruption=by)
    for peer in (pod(0), going(0, deleted=0), ended(0, 24, result=failure(Reason.INTERRUPTED))):
        found = end(peer, taken, seconds=1)
        assert found == End(reason, f"bot-a1-worker-0: {words}")
    assert TABLE[reason].retry is Retry.INFRASTRUCTURE


@pytest.mark.parametrize("by", DISRUPTIONS)
def test_whoever_took_a_pod_away_is_named_once_it_has_ended(by: str) -> None:
    words, reason = DISRUPTIONS[by]
    told = {"disrupted": words, "disruption": by}
    for taken in (ended(1, 143, **told), pod(1, gone=True, **told), pod(1, phase="Failed", **told)):
        found = end(ended(0, 24), taken)
        assert found == End(reason, f"bot-a1-worker-0: {words}")


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("NodeLost", Reason.NODE_LOST),
        ("Preempting", Reason.PREEMPTED),
        ("Evicted", Reason.EVICTED),
        ("Terminated", Reason.EVICTED),
        ("NodeShutdown", Reason.EVICTED),
    ],
)
def test_a_pods_own_reason_names_it_as_well(says: str, reason: Reason) -> None:
    for taken in (going(reason=says, message="m"), pod(phase="Failed", reason=says, message="m")):
        assert end(taken) == End(reason, "bot-a1-master-0: m")


def test_a_condition_of_a_pod_that_stays_tells_nothing() -> None:
    observed = seen(pod(disrupted="a drain that was given up"), children=(WORKLOAD,))
    assert end_of(job(), attempt(), observed, at(60), BACKEND.workload) is None


def test_a_running_pod_that_is_deleted_ends_the_attempt_at_once() -> None:
    lost = End(Reason.POD_LOST, "bot-a1-worker-0 was deleted")
    assert end(pod(0), going(1), seconds=0) == lost


@pytest.mark.parametrize("running", [True, False])
def test_a_pod_that_goes_is_not_waited_for_though_it_counts_as_pending(running: bool) -> None:
    """It waits for rank 0 all its grace, or a sidecar never started beside its trainer."""
    taken = going(1, phase="Pending", running=running)
    observed = seen(pod(0), taken, children=(WORKLOAD,))
    found = end_of(job(), attempt(), observed, at(1), BACKEND.workload)
    assert found == End(Reason.POD_LOST, "bot-a1-worker-0 was deleted")
    words, reason = DISRUPTIONS["EvictionByEvictionAPI"]
    evicted = replace(taken, disrupted=words, disruption="EvictionByEvictionAPI")
    observed = seen(pod(0), evicted, children=(WORKLOAD,))
    found = end_of(job(), attempt(), observed, at(1), BACKEND.workload)
    assert found == End(reason, f"bot-a1-worker-0: {words}")


@pytest.mark.parametrize("pods", [(going(0), going(1)), (pod(0, gone=True), pod(1, gone=True))])
def test_pods_that_a_queue_takes_back_had_to_make_room(pods: Any) -> None:
    held = replace(WORKLOAD, held="is suspended")
    record = attempt(pod_uids=["pod-0", "pod-1"], running_time=stamp(1))
    found = end_of(job(), record, seen(*pods, children=(held,)), at(5), BACKEND.workload)
    assert found is not None
    text = "bot-a1-master-0 was deleted: PyTorchJob bot-a1 is suspended"
    assert (found.reason, found.message) == (Reason.PREEMPTED, text)
    failed = (ended(0, 12, result=failure(Reason.DATA_INVALID, "line 7")), pods[1])
    told = end_of(job(), record, seen(*failed, children=(held,)), at(5), BACKEND.workload)
    assert told == End(Reason.DATA_INVALID, "bot-a1-master-0: line 7")


INTERRUPTED = failure(Reason.INTERRUPTED)
LEFT_ALONE = failure(Reason.DISTRIBUTED_FAILURE)
DELETED = {"due": at(130), "deleted": at(10)}


@pytest.mark.parametrize(
    "master",
    [
        ended(0, 24, seconds=12, result=INTERRUPTED),
        ended(0, 24, seconds=12, result=INTERRUPTED, due=at(131), deleted=at(11)),
        ended(0, 23, seconds=11, result=LEFT_ALONE),
        going(0, deleted=11),
    ],
    ids=["agreed", "deleted too", "left alone", "going too"],
)
@pytest.mark.parametrize(
    "worker",
    [
        ended(1, 24, seconds=13, result=INTERRUPTED, **DELETED),
        ended(1, 137, seconds=130, **DELETED),
        ended(1, 143, seconds=10, **DELETED),
        pod(1, **DELETED),
    ],
    ids=["told to stop", "killed after its grace", "at once", "going"],
)
def test_the_first_that_was_deleted_is_the_cause(master: Any, worker: Any) -> None:
    assert end(master, worker) == End(Reason.POD_LOST, "bot-a1-worker-0 was deleted")


@pytest.mark.parametrize("deleted", [10, 12])
def test_what_a_failure_leaves_is_deleted_and_no_cause(deleted: int) -> None:
    """Timestamps tell whole seconds."""
    master = ended(0, 23, seconds=10, result=LEFT_ALONE)
    killed = ended(0, 137, seconds=10)
    for worker in (going(1, deleted), ended(1, 24, seconds=deleted, deleted=at(deleted))):
        for first, reason in ((master, Reason.DISTRIBUTED_FAILURE), (killed, Reason.RESULT_LOST)):
            found = end(first, worker)
            assert found is not None
            assert found.reason is reason


def test_a_pod_that_failed_before_it_was_deleted_tells_its_own_end() -> None:
    for code, reason in ((23, Reason.DISTRIBUTED_FAILURE), (12, Reason.DATA_INVALID)):
        found = end(ended(0, code, seconds=10, deleted=at(11)), pod(1, gone=True))
        assert found is not None
        assert found.reason is reason


def test_a_cause_told_within_the_grace_is_heard() -> None:
    words = failure(Reason.DATA_INVALID, "line 7")
    found = end(ended(0, 12, seconds=13, result=words, **DELETED), pod(1))
    assert found == End(Reason.DATA_INVALID, "bot-a1-master-0: line 7")


def test_a_worker_that_ended_well_is_not_missed() -> None:
    done = replace(ended(1, 0), phase="Running", due=at(130), deleted=at(10))
    observed = seen(pod(0), done, children=(WORKLOAD,))
    assert end_of(job(), attempt(), observed, at(60), BACKEND.workload) is None


INIT = pod(1, phase="Failed", running=False, init_failure=InitFailure("init-pytorch", 1, True))
NO_ROOM = Obstacle("Unschedulable", "0/3 nodes are available")
GAVE_UP = "bot-a1-worker-0: init container init-pytorch ended with code 1"


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("waits", [INIT, ended(1, 23, result=failure(Reason.DISTRIBUTED_FAILURE))])
def test_a_pod_that_waited_in_vain_for_a_peer_tells_what_kept_that_one(
    waits: Any, gone: bool
) -> None:
    """training-operator deletes the master as soon as the worker has failed."""
    master = pod(0, phase="Pending", running=False, scheduled=None, obstacle=NO_ROOM, gone=gone)
    found = end(master, waits)
    assert found is not None
    assert found.reason is Reason.UNSCHEDULABLE
    assert found.message.startswith(
        "bot-a1-master-0: 0/3 nodes are available; meanwhile bot-a1-worker-0"
    )


@pytest.mark.parametrize(
    "master",
    [
        pod(0, phase="Pending", running=False),
        pod(0),
        ended(0, 23, obstacle=NO_ROOM),
    ],
    ids=["merely slow", "runs", "has run"],
)
def test_a_pod_that_waited_for_one_that_nothing_kept_lost_it(master: Any) -> None:
    assert end(master, INIT) == End(Reason.DISTRIBUTED_FAILURE, GAVE_UP)


@pytest.mark.parametrize("gone", [True, False])
def test_a_pod_that_waited_for_one_that_was_not_ready_tells_what_kept_it_unready(
    gone: bool,
) -> None:
    proxy = Obstacle("", "containers with unready status: [istio-proxy]", at(0))
    found = end(pod(0, obstacle=proxy, gone=gone), INIT)
    assert found is not None
    assert found.reason is Reason.NOT_STARTING
    assert found.message == f"bot-a1-master-0: {proxy.message}; meanwhile {GAVE_UP}"


def test_once_all_have_run_nobody_waits_for_a_start() -> None:
    master = pod(0, phase="Pending", running=False, scheduled=None, obstacle=NO_ROOM)
    observed = seen(master, INIT, children=(WORKLOAD,))
    found = end_of(job(), attempt(running_time=stamp(1)), observed, at(60), BACKEND.workload)
    assert found == End(Reason.DISTRIBUTED_FAILURE, GAVE_UP)

"""Objects as a cluster has them -> what the operator sees in them."""

import json
from typing import Any

import pytest

from finetune_api.status import FineTuneJobStatus
from finetune_contract.progress import Phase
from finetune_operator.observe.observe import newest, observe
from finetune_operator.observe.observed import Child, Crashes, InitFailure, Observed, Obstacle, Sign
from finetune_operator.plan.backends import BACKEND
from support.operator.values import UID, at, attempt, job, stamp

Json = Any
OWNER = {"kind": "FineTuneJob", "name": "bot", "uid": UID, "controller": True}
MAKER = {"kind": "PyTorchJob", "name": "bot-a1", "uid": "workload", "controller": True}


def body(kind: str = "Pod", name: str = "bot-a1-master-0", **fields: Json) -> Json:
    owner = MAKER if kind == "Pod" else OWNER
    given = fields.pop("metadata", {})
    metadata = {"name": name, "uid": "u", "ownerReferences": [owner], **given}
    return {"kind": kind, "metadata": metadata, **fields}


def look(*bodies: Json, departed: tuple[Json, ...] = (), replicas: int = 16) -> Any:
    status = FineTuneJobStatus(attempts=[attempt()])
    return observe(job(status, workers={"replicas": replicas}), bodies, departed, BACKEND)


def pod(**status: Json) -> Any:
    (found,) = look(body(status=status)).pods
    return found


def test_a_pods_place() -> None:
    seen = look(
        body(name="bot-a1-worker-11"), body(name="bot-a1-master-0"), body(name="bot-a1-worker-2")
    )
    assert [p.node_rank for p in seen.pods_of(1)] == [0, 3, 12]
    assert look(body(name="bot-a1-launcher")).pods == ()
    assert seen.pods_of(2) == []


def test_a_new_pod_says_nothing() -> None:
    seen = pod()
    assert (seen.phase, seen.running, seen.finished) == ("Pending", False, False)
    assert (seen.obstacle, seen.end, seen.disrupted, seen.scheduled) == (None,) * 4


def test_a_running_pod() -> None:
    seen = pod(
        phase="Running",
        conditions=[
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(3)},
            {"type": "DisruptionTarget", "status": "False", "message": "no"},
        ],
        containerStatuses=[
            {"name": "sidecar", "state": {"waiting": {"reason": "PodInitializing"}}},
            {"name": "pytorch", "state": {"running": {}}},
        ],
    )
    assert seen.running
    assert seen.scheduled == at(3)
    assert (seen.disrupted, seen.obstacle) == (None, None)


@pytest.mark.parametrize(
    ("condition", "why"),
    [({"message": "node lost", "reason": "Taint"}, "node lost"), ({"reason": "Taint"}, "Taint")],
)
def test_a_pod_that_the_cluster_takes_away(condition: Json, why: str) -> None:
    told = {"type": "DisruptionTarget", "status": "True", **condition}
    seen = pod(conditions=[told])
    assert (seen.disrupted, seen.disruption) == (why, "Taint")
    seen = pod(conditions=[{**told, "status": "False"}])
    assert (seen.disrupted, seen.disruption) == (None, "")


def test_a_pod_that_is_being_deleted_is_due_and_one_that_was_is_gone() -> None:
    (seen,) = look(body(metadata={"deletionTimestamp": stamp(9)})).pods
    assert (seen.due, seen.gone, seen.finished, seen.deleted) == (at(9), False, False, at(9))
    asked = {"deletionTimestamp": stamp(9), "deletionGracePeriodSeconds": 7}
    (seen,) = look(body(metadata=asked)).pods
    assert (seen.due, seen.deleted) == (at(9), at(2))
    asked["deletionGracePeriodSeconds"] = 2**63 - 1  # as anyone may who deletes it
    (seen,) = look(body(metadata=asked)).pods
    assert (seen.due, seen.deleted) == (at(9), None)
    (seen,) = look(departed=(body(),)).pods
    assert (seen.gone, seen.finished) == (True, True)


def test_how_a_container_ended() -> None:
    result = {"attempt": 1, "outcome": "Failed", "reason": "DataInvalid", "message": "row 7"}
    ended = {"exitCode": 12, "reason": "Error", "finishedAt": stamp(5)}
    ended["message"] = f"log\n{json.dumps(result)}"
    seen = pod(
        phase="Failed", containerStatuses=[{"name": "pytorch", "state": {"terminated": ended}}]
    )
    assert (seen.end.exit_code, seen.end.reason, seen.end.finished) == (12, "Error", at(5))
    assert seen.end.result.message == "row 7"
    assert seen.finished
    assert not seen.running


@pytest.mark.parametrize(
    ("status", "obstacle"),
    [
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                ]
            },
            Obstacle("Unschedulable", ""),
        ),
        (
            {
                "initContainerStatuses": [
                    {"image": "alpine", "state": {"waiting": {"reason": "ErrImagePull"}}}
                ]
            },
            Obstacle("ErrImagePull", "image alpine"),
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "pytorch",
                        "state": {"waiting": {"reason": "ErrImagePull", "message": "no tag"}},
                    }
                ]
            },
            Obstacle("ErrImagePull", "no tag"),
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "pytorch",
                        "image": "alpine",
                        "state": {"waiting": {"reason": "ContainerCreating"}},
                    },
                    {
                        "name": "other",
                        "state": {"waiting": {"reason": "CreateContainerError", "message": "gpu"}},
                    },
                ]
            },
            Obstacle("CreateContainerError", "gpu"),
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "pytorch",
                        "image": "alpine",
                        "state": {"waiting": {"reason": "ContainerCreating"}},
                    },
                ]
            },
            Obstacle("ContainerCreating", "image alpine"),
        ),
    ],
)
def test_what_a_pod_waits_for(status: Json, obstacle: Obstacle) -> None:
    assert pod(**status).obstacle == obstacle


def test_an_init_container_that_failed() -> None:
    failed = {"name": "init-pytorch", "state": {"terminated": {"exitCode": 1}}}
    fine = {"name": "other", "state": {"terminated": {"exitCode": 0}}}
    assert pod(initContainerStatuses=[fine]).init_failure is None
    proxy = {"name": "istio-proxy", "state": {"terminated": {"exitCode": 143}}}
    spec = {"initContainers": [{"name": "istio-proxy", "restartPolicy": "Always"}]}
    (seen,) = look(body(spec=spec, status={"initContainerStatuses": [proxy]})).pods
    assert seen.init_failure is None, "a sidecar ends after the others"
    seen = pod(initContainerStatuses=[fine, failed])
    assert seen.init_failure == InitFailure("init-pytorch", 1, waited=True)
    seen = pod(initContainerStatuses=[fine, {**failed, "name": "istio-init"}])
    assert seen.init_failure == InitFailure("istio-init", 1)


RUNNER = {"name": "rewards", "restartCount": 3}
OVER = {"exitCode": 10, "reason": "Error", "message": "log\nits words\n"}


@pytest.mark.parametrize(
    "states",
    [
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": OVER}},
        {"state": {"terminated": OVER}, "lastState": {"terminated": {"exitCode": 1}}},
    ],
)
def test_a_reward_runner_that_ends_again_and_again(states: Json) -> None:
    first = {"name": "init-pytorch", "restartCount": 9, "state": {"terminated": OVER}}
    seen = pod(initContainerStatuses=[first, {**RUNNER, **states}])
    assert seen.runner_crashes == Crashes(3, 10, "Error", "log its words")
    long = {"terminated": {**OVER, "message": "x" * 600 + "end"}}
    words = pod(initContainerStatuses=[{**RUNNER, "state": long}]).runner_crashes.words
    assert (len(words), words[-4:]) == (512, "xend")


@pytest.mark.parametrize(
    "states",
    [
        {"state": {"running": {}}, "lastState": {"terminated": OVER}},
        {"state": {"terminated": OVER}, "restartCount": 0},
        {"state": {"waiting": {"reason": "PodInitializing"}}},
    ],
)
def test_a_reward_runner_that_runs_or_ended_once(states: Json) -> None:
    assert pod(initContainerStatuses=[{**RUNNER, **states}]).runner_crashes is None


def lease(text: str | None, renewed: str | None) -> Json:
    annotations = {"finetune.dev/progress": text} if text else {}
    spec = {"renewTime": renewed} if renewed else {}
    return body("Lease", "bot-a1", metadata={"annotations": annotations}, spec=spec)


def test_a_report_of_progress() -> None:
    (report,) = look(lease('{"phase": "Train", "done": 3}', "2026-03-01T12:00:05.25Z")).reports
    assert (report.attempt, report.progress.phase, report.progress.done) == (1, Phase.TRAIN, 3)
    assert report.time == at(5.25)


@pytest.mark.parametrize(
    ("text", "renewed"),
    [
        ('{"phase": "Train"}', None),
        (None, stamp(0)),
        ("not JSON", stamp(0)),
        ('{"phase": "Dance"}', stamp(0)),
        ('{"phase": "Train"}', "0000-01-01T00:00:00Z"),
        ("[" * 4000, stamp(0)),
    ],
)
def test_what_is_no_report(text: str | None, renewed: str | None) -> None:
    assert look(lease(text, renewed)).reports == ()


@pytest.mark.parametrize(
    ("conditions", "outcome"),
    [
        ([], None),
        ([{"type": "Running", "status": "True"}], None),
        ([{"type": "Running", "status": "False"}, {"type": "Succeeded", "status": "True"}], True),
        ([{"type": "Failed", "status": "True"}], False),
        ([{"type": "Failed", "status": "False"}], None),
    ],
)
def test_how_a_workload_ended(conditions: Json, outcome: bool | None) -> None:
    (seen,) = look(body("PyTorchJob", "bot-a1", status={"conditions": conditions})).children
    assert seen.outcome is outcome


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({}, None),
        ({"spec": {"runPolicy": None}}, None),
        ({"spec": {"runPolicy": {"suspend": False}}, "status": {"startTime": "t"}}, None),
        (
            {"spec": {"runPolicy": {"suspend": True}}},
            "is suspended, as by a queue that has not admitted it",
        ),
        ({"status": {"lastReconcileTime": "t"}}, "waits for its PodGroup"),
        ({"status": {"lastReconcileTime": "t", "startTime": "t"}}, None),
    ],
)
def test_what_holds_a_workload(fields: Json, held: str | None) -> None:
    (seen,) = look(body("PyTorchJob", "bot-a1", **fields)).children
    assert seen.held == held
    (other,) = look(body("Lease", "bot-a1", spec={"runPolicy": {"suspend": True}})).children
    assert other.held is None


def warned(events: Any) -> str | None:
    """The newest Event's message, if it is a warning."""
    sign = newest(events)
    return sign.message if sign and sign.warning else None


def test_the_newest_event_counts_and_only_if_it_warns() -> None:
    warning = {"type": "Warning", "message": "no", "lastTimestamp": stamp(2)}
    normal = {"type": "Normal", "message": "yes", "lastTimestamp": stamp(1)}
    later = {"type": "Normal", "message": "yes", "eventTime": stamp(3)}
    assert warned([warning, normal]) == "no"
    assert warned([warning, later]) is None
    pulling = {**later, "reason": "Pulling"}
    assert newest([pulling, warning]) == Sign(False, "Pulling", "yes", at(3))
    assert newest([{"type": "Normal"}]) == Sign(False, "", "", None)
    assert newest([]) is None


def test_an_attempts_workload_is_the_one_that_makes_its_pods() -> None:
    lease = Child("Lease", "bot-a1", "lease", UID, 1, deleting=False)
    first = Child("PyTorchJob", "bot-a1", "job", UID, 1, deleting=False, workload=True)
    later = Child("PyTorchJob", "bot-a2", "later", UID, 2, deleting=False, workload=True)
    strange = Child("PyTorchJob", "bot-a1", "x", "deleted-job", 1, False, workload=True)
    observed = Observed(children=(lease, strange, later, first))
    assert observed.workload(UID, 1) is first
    assert observed.workload(UID, 2) is later
    assert observed.workload(UID, 3) is None

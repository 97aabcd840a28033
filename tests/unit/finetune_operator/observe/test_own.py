"""Only what a job made itself, and what its workloads made, is believed."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.status import FineTuneJobStatus
from finetune_operator.job.names import labels
from finetune_operator.observe.observe import observe
from finetune_operator.observe.observed import Stray
from finetune_operator.plan.backends import BACKEND
from support.operator.values import UID, attempt, job, stamp

Json = Any
OWNER = {"kind": "FineTuneJob", "name": "bot", "uid": UID, "controller": True}
MAKER = {"kind": "PyTorchJob", "name": "bot-a1", "uid": "workload", "controller": True}
PROGRESS = {"finetune.dev/progress": '{"phase": "Train"}'}


def body(kind: str, name: str, owner: Json = OWNER, uid: str = "u", **more: Json) -> Json:
    """An object with all the labels of attempt 1, whoever made it."""
    metadata = {"name": name, "uid": uid, "labels": labels(job(), 1)}
    if owner:
        metadata["ownerReferences"] = [owner]
    return {"kind": kind, "metadata": metadata, **more}


def lease(name: str, owner: Json = OWNER) -> Json:
    made = body("Lease", name, owner, spec={"renewTime": stamp(0)})
    made["metadata"]["annotations"] = PROGRESS
    return made


def look(*bodies: Json, recorded: str | None = "workload", departed: tuple[Json, ...] = ()) -> Any:
    status = FineTuneJobStatus(attempts=[attempt(workload_uid=recorded)])
    return observe(job(status), bodies, departed, BACKEND)


STRANGERS = [
    {},
    {**OWNER, "uid": "of-a-deleted-job"},
    {**OWNER, "name": "other"},
    {**OWNER, "kind": "Deployment"},
    {**OWNER, "controller": False},
]


@pytest.mark.parametrize("owner", STRANGERS)
def test_a_lease_reports_by_its_controllers_uid_not_by_labels(owner: Json) -> None:
    assert len(look(lease("bot-a1")).reports) == 1
    assert look(lease("bot-a1", owner)).reports == ()


def test_a_lease_reports_of_the_attempt_in_its_name() -> None:
    (report,) = look(lease("bot-a7")).reports
    assert report.attempt == 7
    for name in ("bot-a1-x", "bot-a01", "bot-a0", "bot-finetune", "bot-a1-finetune"):
        assert look(lease(name)).reports == (), name


@pytest.mark.parametrize("owner", [MAKER, {}, {**MAKER, "uid": "another"}])
@pytest.mark.parametrize(("uid", "known"), [("pod-1", True), ("pod-2", False)])
def test_a_pod_that_was_recorded_stays_the_attempts_though_it_was_orphaned(
    owner: Json, uid: str, known: bool
) -> None:
    status = FineTuneJobStatus(attempts=[attempt(pod_uids=["pod-1"])])
    pod = body("Pod", "bot-a1-master-0", owner, uid=uid)
    seen = observe(job(status), (pod,), (), BACKEND)
    assert (len(seen.pods) == 1) is (known or owner == MAKER)
    assert len(seen.pods) + len(seen.strays) == 1
    elsewhere = observe(job(status), (body("Pod", "bot-b", owner, uid=uid),), (), BACKEND)
    assert elsewhere.pods == ()


PLACED = [
    {**MAKER, "uid": "another"},
    {**MAKER, "kind": "Job"},
    {**MAKER, "controller": False},
    OWNER,
    {},
]


@pytest.mark.parametrize("owner", PLACED)
@pytest.mark.parametrize("gone", [False, True])
def test_a_pod_counts_by_its_workloads_uid_not_by_labels(owner: Json, gone: bool) -> None:
    def seen(pod: Json) -> Any:
        return look(departed=(pod,)) if gone else look(pod)

    assert len(seen(body("Pod", "bot-a1-master-0", MAKER)).pods) == 1
    found = seen(body("Pod", "bot-a1-master-0", owner))
    assert found.pods == ()
    assert [stray.name for stray in found.strays] == ([] if gone else ["bot-a1-master-0"])


@pytest.mark.parametrize(
    "name",
    [
        "bot-a1-worker-1",  # there are two workers
        "bot-a1-master-1",
        "bot-a1-worker-00",
        "bot-a1-x-master-0",
        "bot-a1-launcher",
        "bot-a2-master-0",
        "bot-b-a1-master-0",
    ],
)
def test_a_pod_counts_only_with_a_planned_name(name: str) -> None:
    assert look(body("Pod", name, MAKER)).pods == ()


def test_a_pod_that_holds_a_planned_name_says_whose_it_is() -> None:
    web = {"kind": "ReplicaSet", "name": "web\x1b", "uid": "r", "controller": True}
    found = look(body("Pod", "bot-a1-worker-0", web), body("Pod", "bot-a2-master-0", {}))
    assert found.strays == (
        Stray("bot-a1-worker-0", 1, "ReplicaSet web\\x1b"),
        Stray("bot-a2-master-0", 2, "nobody"),
    )
    assert found.strays_of(2) == [found.strays[1]]


@pytest.mark.parametrize(
    ("recorded", "pods", "strays"), [(None, 0, 0), ("new", 1, 0), ("workload", 0, 1)]
)
def test_pods_count_once_their_workload_is_recorded(
    recorded: str | None, pods: int, strays: int
) -> None:
    workload = body("PyTorchJob", "bot-a1", uid="new")
    pod = body("Pod", "bot-a1-master-0", {**MAKER, "uid": "new"})
    found = look(workload, pod, recorded=recorded)
    assert (len(found.pods), len(found.strays)) == (pods, strays)
    forged = body("PyTorchJob", "bot-a1", {**OWNER, "uid": "of-a-deleted-job"}, uid="new")
    assert len(look(forged, pod, recorded=None).strays) == 1


OTHERS = [{**MAKER, "kind": "Job"}, {**MAKER, "name": "bot-a2"}, {**MAKER, "controller": False}, {}]


@pytest.mark.parametrize("recorded", [None, "workload"])
def test_pods_of_which_no_record_tells_may_run(recorded: str | None) -> None:
    """Whether their workload stands yet or not: it may have been recorded once."""
    pod = body("Pod", "bot-a1-master-0", {**MAKER, "uid": "new"}, uid="pod")
    for children in ((pod,), (pod, body("PyTorchJob", "bot-a1", uid="new"))):
        found = look(*children, recorded=recorded)
        assert [(p.name, p.attempt) for p in found.may_run()] == [("bot-a1-master-0", 1)]
        assert found.pods == ()
    assert look(recorded=recorded, departed=(pod,)).may_run() == []
    for owner in OTHERS:
        assert look(body("Pod", "bot-a1-master-0", owner), recorded=recorded).kin == (), owner


def test_a_pod_that_runs_is_told_once() -> None:
    pod = body("Pod", "bot-a1-master-0", MAKER)
    assert len(look(pod).may_run()) == 1
    ended = {"phase": "Failed"}
    assert look({**pod, "status": ended}).may_run() == []
    assert look({**pod, "status": ended}, recorded=None).may_run() == []


@pytest.mark.parametrize("owner", STRANGERS)
def test_a_workload_that_is_recorded_stays_the_jobs_own(owner: Json) -> None:
    robbed = body("PyTorchJob", "bot-a1", owner)
    assert look(robbed, recorded=robbed["metadata"]["uid"]).workload(UID, 1)
    assert look(robbed, recorded="another").workload(UID, 1) is None


@pytest.mark.parametrize("owner", STRANGERS)
def test_the_pod_that_tries_the_rewards_counts_by_its_controllers_uid(owner: Json) -> None:
    assert len(look(body("Pod", "bot-rewards")).checks) == 1
    assert look(body("Pod", "bot-rewards", owner)).checks == ()
    assert look(departed=(body("Pod", "bot-rewards", owner),)).checks == ()


def test_children_and_their_owner() -> None:
    viewer = {"kind": "FineTuneJob", "name": "bot", "uid": "viewer"}
    role = body("Role", "bot-a1")
    role["metadata"]["ownerReferences"].insert(0, viewer)
    account = body("ServiceAccount", "bot-finetune", {})
    account["metadata"]["deletionTimestamp"] = "x"
    workload, role, account = look(role, body("PyTorchJob", "bot-a1"), account).children
    assert (role.owner_uid, role.attempt, role.workload) == (UID, 1, False)
    assert (account.owner_uid, account.attempt, account.deleting) == (None, None, True)
    assert workload.workload


@pytest.mark.parametrize(
    ("owner", "uid"),
    [
        (OWNER, UID),
        ({**OWNER, "uid": "of-a-deleted-job"}, "of-a-deleted-job"),
        ({**OWNER, "name": "other"}, None),
        ({**OWNER, "kind": "Deployment"}, None),
        ({}, None),
    ],
)
def test_only_a_job_of_the_name_leaves_children_behind(owner: Json, uid: str | None) -> None:
    (found,) = look(body("ConfigMap", "bot-a1", owner)).children
    assert found.owner_uid == uid


def test_what_has_no_planned_name_is_no_child() -> None:
    assert (
        look(body("ConfigMap", "bot-a1-x"), body("Pod", "bot-a1"), body("Role", "x")).children == ()
    )

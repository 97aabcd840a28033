"""What stands where an attempt's objects go: a stranger's, or the own as others made it."""

import copy
from collections.abc import Awaitable, Callable

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError
from finetune_operator.cluster.queue import RetryLater
from finetune_operator.job.names import DIGEST_ANNOTATION
from support.operator.passes import KEY, Bench, Json


def foreign(**metadata: Json) -> Json:
    return {"kind": "ConfigMap", "metadata": {"name": "bot-a1", **metadata}}


async def test_a_strangers_object_is_neither_changed_nor_taken() -> None:
    bench = Bench()
    bench.world.add(foreign())
    assert await bench.do_pass() == 5
    assert bench.told("Reconciling")[1] == "NameTaken"
    text = "ConfigMap bot-a1 exists and is not this job's: it belongs to nobody"
    assert text in bench.told("Reconciling")[2]
    assert "PyTorchJob" not in bench.created
    assert "labels" not in bench.world.objects["ConfigMap", "bot-a1"]["metadata"]


async def test_an_own_object_that_the_cache_does_not_show_is_adopted() -> None:
    bench = Bench()
    await bench.do_pass()
    bench.forget()
    writes = bench.world.writes
    await bench.reconciler.reconcile(KEY)
    assert bench.world.writes == writes


async def test_a_deleted_jobs_object_is_removed_and_its_name_used() -> None:
    bench = Bench()
    owner = {"kind": KIND, "name": "bot", "uid": "uid-of-old", "controller": True}
    labels = {
        "app.kubernetes.io/managed-by": "finetune-operator",
        "finetune.dev/job": "bot",
        "finetune.dev/attempt": "1",
    }
    bench.world.add(foreign(labels=labels, ownerReferences=[owner]))
    await bench.do_pass()
    (kept,) = bench.world.objects["ConfigMap", "bot-a1"]["metadata"]["ownerReferences"]
    assert kept["uid"] == bench.world.job()["metadata"]["uid"]


async def test_an_object_may_have_other_owners_too() -> None:
    bench = Bench()
    await bench.do_pass()
    body = bench.world.objects["ServiceAccount", "bot-finetune"]
    owners = [*body["metadata"]["ownerReferences"], {"kind": "Team", "uid": "team"}]
    bench.world.store({**body, "metadata": {**body["metadata"], "ownerReferences": owners}})
    await bench.do_pass()
    assert bench.told("Reconciling")[1] == "Pending"


async def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    bench = Bench()
    await bench.do_pass()
    body = bench.world.objects["ServiceAccount", "bot-finetune"]
    bench.world.store({**body, "metadata": {**body["metadata"], "deletionTimestamp": "now"}})
    assert await bench.do_pass() == 5
    assert "ServiceAccount bot-finetune is being deleted" in bench.told("Reconciling")[2]


async def test_a_name_that_was_free_again_when_looked_at_is_tried_later() -> None:
    bench = Bench()
    bench.refusals["Lease"] = ApiError(409, "AlreadyExists", "it exists")
    assert await bench.do_pass() == 5
    truth, reason, message = bench.told("Reconciling")
    assert (truth, reason) == ("True", "NameTaken")
    assert "Lease bot-a1 went away while it was looked at" in message


Change = Callable[[Json], None]


def mend(part: str, value: Json) -> Change:
    return lambda body: body.__setitem__(part, value)


def strip(*path: str) -> Change:
    def change(body: Json) -> None:
        for step in path[:-1]:
            body = body[step]
        del body[path[-1]]

    return change


def tamper(bench: Bench, kind: str, name: str, change: Change) -> Json:
    """Change an object by another hand; return it as it was."""
    body = copy.deepcopy(bench.world.objects[kind, name])
    before = copy.deepcopy(body)
    change(body)
    bench.world.store(body)
    return before


def say(body: Json) -> None:
    body["metadata"]["annotations"]["finetune.dev/progress"] = "{}"


OTHER_BUCKET = mend("data", {"run-config.json": "of another bucket"})
TAMPERED: list[tuple[str, str, Change]] = [
    ("ConfigMap", "bot-a1", OTHER_BUCKET),
    ("ConfigMap", "bot-a1", strip("immutable")),
    ("ConfigMap", "bot-a1", strip("metadata", "labels")),
    ("Role", "bot-a1", mend("rules", [])),
    ("Role", "bot-a1", strip("metadata", "labels", "app.kubernetes.io/managed-by")),
    ("Role", "bot-a1", strip("metadata", "annotations")),
    ("RoleBinding", "bot-a1", mend("roleRef", {"kind": "Role", "name": "admin"})),
    ("Lease", "bot-a1", mend("spec", {"holderIdentity": "stranger"})),
    ("Lease", "bot-a1", say),
    ("Lease", "bot-a1", strip("metadata", "labels")),
    ("ServiceAccount", "bot-finetune", mend("automountServiceAccountToken", True)),
    ("NetworkPolicy", "bot-finetune", mend("spec", {})),
]


@pytest.mark.parametrize("shown", [True, False], ids=["the cache shows it", "a POST finds it"])
@pytest.mark.parametrize(("kind", "name", "change"), TAMPERED)
async def test_what_was_planted_is_put_right_before_an_attempt_begins(
    kind: str, name: str, change: Change, shown: bool
) -> None:
    bench = Bench()
    bench.refusals["PyTorchJob"] = ApiError(500, "InternalError", "etcd is slow")
    with pytest.raises(RetryLater):
        await bench.do_pass()
    planned = tamper(bench, kind, name, change)
    bench.refusals.clear()
    if shown:
        await bench.do_pass()
    else:
        bench.forget()
        await bench.reconciler.reconcile(KEY)
    found = copy.deepcopy(bench.world.objects[kind, name])
    for body in (planned, found):
        body["metadata"].pop("resourceVersion")
    if kind in ("ConfigMap", "RoleBinding", "Lease"):
        assert found["metadata"].pop("uid") != planned["metadata"].pop("uid")
    assert found == planned
    assert ("PyTorchJob", "bot-a1") in bench.world.objects
    writes = bench.world.writes
    assert await bench.do_pass() == 3
    assert bench.world.writes == writes


def forget_the_workload(body: Json) -> None:
    """Leave a status as an operator does that dies before it has recorded what it made."""
    del body["status"]["attempts"][0]["workloadUid"]


async def test_a_workload_that_stands_as_planned_is_the_attempts_own() -> None:
    bench = Bench()
    await bench.do_pass()
    uid = bench.world.objects["PyTorchJob", "bot-a1"]["metadata"]["uid"]
    tamper(bench, KIND, "bot", forget_the_workload)
    await bench.do_pass()
    assert bench.created.count("PyTorchJob") == 1
    assert bench.status()["attempts"][0]["workloadUid"] == uid


OTHER_PODS = mend("spec", {"pytorchReplicaSpecs": {"Master": {"replicas": 1}}})


@pytest.mark.parametrize("shown", [True, False], ids=["the cache shows it", "a POST finds it"])
@pytest.mark.parametrize("change", [OTHER_PODS, strip("metadata", "annotations")])
async def test_a_workload_that_was_planted_is_made_anew(change: Change, shown: bool) -> None:
    bench = Bench()
    await bench.do_pass()
    tamper(bench, KIND, "bot", forget_the_workload)
    planned = tamper(bench, "PyTorchJob", "bot-a1", change)
    tamper(bench, "ConfigMap", "bot-a1", OTHER_BUCKET)
    if shown:
        await bench.relist()
    else:
        bench.forget()
    assert await bench.reconciler.reconcile(KEY) == 0
    await bench.do_pass()
    found = bench.world.objects["PyTorchJob", "bot-a1"]
    assert found["metadata"]["uid"] != planned["metadata"]["uid"]
    assert found["spec"] == planned["spec"]
    assert bench.status()["attempts"][0]["workloadUid"] == found["metadata"]["uid"]
    assert bench.created.count("ConfigMap") == 2


async def test_a_workload_is_made_anew_once_nothing_of_it_runs() -> None:
    bench, pod = Bench(), "bot-a1-master-0"
    await bench.do_pass()
    bench.world.train_operator()
    bench.world.kubelet(pod)
    tamper(bench, KIND, "bot", forget_the_workload)
    tamper(bench, "PyTorchJob", "bot-a1", OTHER_PODS)
    await bench.do_pass()
    await bench.do_pass()
    assert bench.told("Succeeded")[1] == "Stopping"
    assert f"still there: pod {pod}" in bench.told("Succeeded")[2]
    bench.world.drop("Pod", pod)
    await bench.do_pass()
    assert bench.created.count("PyTorchJob") == 2


async def test_what_pods_of_a_planted_workload_say_is_not_believed() -> None:
    bench, pod = Bench(), "bot-a1-master-0"
    await bench.do_pass()
    bench.world.train_operator()
    bench.world.kubelet(pod)
    bench.world.end(pod, "Succeeded")
    tamper(bench, KIND, "bot", forget_the_workload)
    tamper(bench, "PyTorchJob", "bot-a1", mend("spec", {}))
    await bench.do_pass()
    assert bench.told("Succeeded")[0] == "Unknown"
    await bench.do_pass()
    text = f"pod {pod} exists and belongs to PyTorchJob bot-a1"
    assert (bench.told("Succeeded")[1], text in bench.told("Succeeded")[2]) == ("NameTaken", True)
    bench.world.collect()
    bench.world.kubelet(pod)
    await bench.do_pass()
    bench.world.train_operator()
    bench.world.kubelet(pod)
    await bench.do_pass()
    assert bench.told("Succeeded")[1] == "Running"


async def test_what_differs_from_the_plan_is_put_right_and_what_has_begun_is_not() -> None:
    bench = Bench()
    await bench.do_pass()
    left: dict[str, Change] = {
        "ConfigMap": OTHER_BUCKET,
        "Lease": say,
        "PyTorchJob": mend("spec", {}),
    }
    for kind, change in {**left, "Role": mend("rules", [])}.items():
        tamper(bench, kind, "bot-a1", change)
    writes = bench.world.writes
    await bench.do_pass()
    assert bench.world.writes == writes + 1
    assert bench.world.objects["Role", "bot-a1"]["rules"] != []


async def test_what_others_add_is_theirs() -> None:
    bench = Bench()
    await bench.do_pass()
    account = copy.deepcopy(bench.world.objects["ServiceAccount", "bot-finetune"])
    account["imagePullSecrets"] = [{"name": "own"}, *account.get("imagePullSecrets", [])]
    account["metadata"]["labels"]["team"] = "x"
    bench.world.store(account)
    writes = bench.world.writes
    await bench.do_pass()
    assert bench.world.writes == writes


@pytest.mark.parametrize("deleted", [False, True])
async def test_what_another_operator_wrote_since_is_not_overwritten(deleted: bool) -> None:
    bench = Bench()
    await bench.do_pass()
    await bench.do_pass()
    name = ("NetworkPolicy", "bot-finetune")
    body = bench.world.objects[name]
    old = {**body["metadata"], "annotations": {}}
    bench.world.store({**body, "metadata": old})
    await bench.relist()
    bench.world.drop(*name)
    if not deleted:
        bench.world.add(body)
    writes = bench.world.writes
    with pytest.raises(RetryLater):
        await bench.reconciler.reconcile(KEY)
    assert bench.world.writes == writes
    await bench.reconciler.reconcile(KEY)
    assert bench.created.count("NetworkPolicy") == 1 + deleted
    assert bench.world.objects[name]["metadata"]["annotations"] != {}


def by_webhook(write: Callable[[Json], Awaitable[Json]]) -> Callable[[Json], Awaitable[Json]]:
    """What is written is stored otherwise, each time."""

    async def written(body: Json) -> Json:
        body = copy.deepcopy(body)
        if body["kind"] == "NetworkPolicy":
            body["spec"]["policyTypes"] = ["Ingress", "Egress"]
        if body["kind"] == "RoleBinding":
            body["subjects"] = [*body["subjects"], {"kind": "Group", "name": "audit"}]
        return await write(body)

    return written


async def test_what_a_webhook_makes_of_an_object_is_left_until_someone_else_changes_it() -> None:
    bench = Bench()
    bench.api.create = by_webhook(bench.api.create)  # type: ignore[method-assign]
    bench.api.apply = by_webhook(bench.api.apply)  # type: ignore[method-assign]
    await bench.do_pass()
    writes = bench.world.writes
    assert await bench.do_pass() != 0
    assert bench.world.writes == writes, "it would be made otherwise again"
    for kind, name in (("NetworkPolicy", "bot-finetune"), ("RoleBinding", "bot-a1")):
        tamper(bench, kind, name, lambda body: body["metadata"]["labels"].clear())
        await bench.do_pass()
        assert bench.world.objects[kind, name]["metadata"]["labels"]
        writes = bench.world.writes
        await bench.do_pass()
        assert bench.world.writes == writes


async def test_what_a_webhook_left_is_put_right_by_another_plan() -> None:
    bench = Bench()
    bench.api.create = by_webhook(bench.api.create)  # type: ignore[method-assign]
    await bench.do_pass()
    known = bench.world.objects["NetworkPolicy", "bot-finetune"]
    annotations = {**known["metadata"]["annotations"], DIGEST_ANNOTATION: "of another plan"}
    planned = {**known, "metadata": {**known["metadata"], "annotations": annotations}}
    assert bench.cache.is_left(known, known)
    whole = [bench.world.objects[k] for k in bench.world.objects if k[0] in ("ConfigMap", "Lease")]
    assert not any(bench.cache.is_left(body, body) for body in whole), "they are as planned"
    assert not bench.cache.is_left(known, planned)
    bench.cache.remove(known)
    assert not bench.cache.is_left(known, known), "it is forgotten with its object"

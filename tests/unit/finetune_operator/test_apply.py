"""Names that are taken, objects that are refused, changed or deleted: how a decision is applied."""

import copy
from collections.abc import Callable

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError
from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.queue import RetryLater
from support.operator.passes import KEY, Bench, Json


async def test_a_pytorchjob_is_not_made_if_a_sibling_could_not_be() -> None:
    bench = Bench()
    bench.refusals["Role"] = ApiError(500, "InternalError", "etcd is slow")
    with pytest.raises(RetryLater):
        await bench.do_pass()
    assert "PyTorchJob" not in bench.created
    bench.refusals.clear()
    await bench.do_pass()
    assert bench.created[-1] == "PyTorchJob"


@pytest.mark.parametrize(
    "refusal",
    [
        ApiError(403, "Forbidden", 'pytorchjobs "bot-a1" is forbidden: exceeded quota: gpus'),
        ApiError(422, "Invalid", "denied by policy: exceeded quota"),
        ApiError(400, "BadRequest", "admission webhook denied: exceeded quota"),
    ],
)
async def test_a_refusal_by_the_cluster_ends_the_job_in_its_words(refusal: ApiError) -> None:
    bench = Bench()
    bench.refusals["PyTorchJob"] = refusal
    await bench.do_pass()
    truth, reason, message = bench.told("Stalled")
    assert (truth, reason) == ("True", "BackendRefused")
    assert f"PyTorchJob bot-a1: {refusal.message}" in message
    assert bench.told("Succeeded")[0] == "False"
    attempt = bench.status()["attempts"][0]
    assert (attempt["state"], attempt["reason"]) == ("Failed", "BackendRefused")
    assert bench.ended == ["BackendRefused"]
    writes = bench.world.writes
    assert await bench.do_pass() is None, "a finished job needs no further look"
    assert bench.world.writes == writes


@pytest.mark.parametrize(
    ("refusal", "reason", "words"),
    [
        (
            ApiError(404, "", "404 page not found"),
            "BackendUnavailable",
            "does not serve kubeflow.org/v1 PyTorchJob",
        ),
        (
            ApiError(404, "NotFound", "the server could not find the requested resource"),
            "BackendUnavailable",
            "does not serve",
        ),
        (
            ApiError(
                500,
                "InternalError",
                'Internal error occurred: failed calling webhook "validator.pytorchjob": failed to '
                'call webhook: Post "https://training-operator": no endpoints available',
            ),
            "BackendUnavailable",
            "PyTorchJob bot-a1 has to pass a webhook that does not answer: Internal error",
        ),
        (
            ApiError(403, "Forbidden", 'User "operator" cannot create resource "pytorchjobs"'),
            "OperatorForbidden",
            'may not write PyTorchJob bot-a1: User "operator" cannot create',
        ),
    ],
)
async def test_what_an_administrator_must_do_is_waited_for(
    refusal: ApiError, reason: str, words: str
) -> None:
    bench = Bench()
    bench.refusals["PyTorchJob"] = refusal
    assert await bench.do_pass() == 30
    truth, told, message = bench.told("Reconciling")
    assert (truth, told) == ("True", reason)
    assert words in message
    writes = bench.world.writes
    await bench.do_pass()
    assert bench.world.writes == writes, "waiting costs no writes"
    bench.refusals.clear()
    await bench.do_pass()
    assert bench.told("Reconciling")[1] == "Pending"


async def test_a_missing_namespace_is_tried_again() -> None:
    bench = Bench()
    bench.refusals["PyTorchJob"] = ApiError(404, "NotFound", 'namespaces "team" not found')
    with pytest.raises(RetryLater):
        await bench.do_pass()


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
    bench.cache = bench.reconciler.cache = Cache()
    bench.cache.put(bench.world.job())
    writes = bench.world.writes
    await bench.reconciler.reconcile(KEY)
    assert bench.world.writes == writes


async def test_the_uid_of_the_workload_is_recorded_from_the_answer() -> None:
    bench = Bench()
    await bench.do_pass()
    made = bench.world.objects["PyTorchJob", "bot-a1"]["metadata"]["uid"]
    assert bench.status()["attempts"][0]["workloadUid"] == made


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


Change = Callable[[Json], None]


def mend(part: str, value: Json) -> Change:
    return lambda body: body.__setitem__(part, value)


def strip(*path: str) -> Change:
    def change(body: Json) -> None:
        for step in path[:-1]:
            body = body[step]
        del body[path[-1]]

    return change


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
    planned = copy.deepcopy(bench.world.objects[kind, name])
    planted = copy.deepcopy(planned)
    change(planted)
    bench.world.store(planted)
    bench.refusals.clear()
    if shown:
        await bench.do_pass()
    else:
        bench.cache = bench.reconciler.cache = Cache()
        bench.cache.put(bench.world.job())
        await bench.reconciler.reconcile(KEY)
    found = copy.deepcopy(bench.world.objects[kind, name])
    for body in (planned, found):
        body["metadata"].pop("resourceVersion")
    if kind in ("ConfigMap", "RoleBinding", "Lease"):
        assert found["metadata"].pop("uid") != planned["metadata"].pop("uid")
    assert found == planned
    assert ("PyTorchJob", "bot-a1") in bench.world.objects
    writes = bench.world.writes
    assert await bench.do_pass() == 10
    assert bench.world.writes == writes


async def test_what_differs_from_the_plan_is_put_right_and_what_has_begun_is_not() -> None:
    bench = Bench()
    await bench.do_pass()
    left: dict[str, Change] = {
        "ConfigMap": OTHER_BUCKET,
        "Lease": say,
        "PyTorchJob": mend("spec", {}),
    }
    for kind, change in {**left, "Role": mend("rules", [])}.items():
        body = copy.deepcopy(bench.world.objects[kind, "bot-a1"])
        change(body)
        bench.world.store(body)
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


async def test_a_missing_sibling_is_made_again_and_the_pytorchjob_is_not() -> None:
    bench = Bench()
    await bench.do_pass()
    await bench.do_pass()
    bench.created.clear()
    bench.world.drop("Lease", "bot-a1")
    await bench.do_pass()
    assert bench.created == ["Lease"]
    bench.world.drop("PyTorchJob", "bot-a1")
    bench.created.clear()
    await bench.do_pass()
    assert bench.created == []
    assert bench.status()["attempts"][0]["reason"] == "PodLost"


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


async def test_a_binding_is_made_when_its_role_is_there() -> None:
    bench = Bench()
    bench.api.turns["Role"] = 10
    await bench.do_pass()
    assert bench.created.index("Role") < bench.created.index("RoleBinding")


async def test_a_failed_write_leaves_none_of_its_siblings_half_way() -> None:
    bench = Bench()
    bench.refusals["Role"] = ApiError(500, "InternalError", "etcd is slow")
    bench.api.turns["Lease"] = 10
    with pytest.raises(RetryLater):
        await bench.do_pass()
    assert bench.cache.find(KEY, "Lease", "bot-a1") is not None


@pytest.mark.parametrize("successor", [False, True])
async def test_a_deletion_may_be_shown_before_it_is_answered(
    successor: bool,
) -> None:
    bench = Bench()
    await bench.do_pass()
    await bench.do_pass()
    lease = bench.world.objects["Lease", "bot-a1"]

    def overtaken(kind: str, at_once: bool) -> None:
        if kind == "Lease":
            bench.cache.remove(lease)
            if successor:
                bench.cache.put({**lease, "metadata": {**lease["metadata"], "uid": "new"}})

    bench.api.on_deleted = overtaken
    bench.world.drop("PyTorchJob", "bot-a1")
    await bench.do_pass()
    known = bench.cache.find(KEY, "Lease", "bot-a1")
    assert (known and known["metadata"]["uid"]) == ("new" if successor else None)


@pytest.mark.parametrize(("finalizers", "known"), [([], False), (["example.com/keep"], True)])
async def test_what_was_deleted_is_known_to_be_gone_unless_a_finalizer_holds_it(
    finalizers: list[str], known: bool
) -> None:
    bench = Bench()
    await bench.do_pass()
    await bench.do_pass()
    lease = bench.world.objects["Lease", "bot-a1"]
    held = {**lease["metadata"], "finalizers": finalizers}
    bench.world.store({**lease, "metadata": held})
    bench.world.drop("PyTorchJob", "bot-a1")
    await bench.do_pass()
    assert ("Lease", "bot-a1") not in bench.world.objects
    assert (bench.cache.find(KEY, "Lease", "bot-a1") is not None) is known


async def test_a_name_that_was_free_again_when_looked_at_is_tried_later() -> None:
    bench = Bench()
    bench.refusals["Lease"] = ApiError(409, "AlreadyExists", "it exists")
    assert await bench.do_pass() == 5
    truth, reason, message = bench.told("Reconciling")
    assert (truth, reason) == ("True", "NameTaken")
    assert "Lease bot-a1 went away while it was looked at" in message


async def test_a_refusal_that_only_sounds_like_a_missing_right_is_one_of_the_cluster() -> None:
    bench = Bench()
    bench.refusals["Lease"] = ApiError(422, "Invalid", "spec cannot be empty")
    await bench.do_pass()
    assert bench.told("Stalled")[1] == "BackendRefused"

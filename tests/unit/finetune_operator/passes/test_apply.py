"""What is refused, what is made in which order, and what was deleted: how a decision is applied."""

from datetime import timedelta

import pytest

from finetune_operator.cluster.api import ApiError
from finetune_operator.cluster.queue import RetryLater
from finetune_operator.judge.fence import COLLECTED
from support.operator.model.world import GRACE
from support.operator.passes import KEY, SETTINGS, Bench

SLOW = ApiError(500, "InternalError", "etcd is slow")
NO_PAGE = ApiError(404, "", "404 page not found")
NO_RESOURCE = ApiError(404, "NotFound", "the server could not find the requested resource")
NO_WEBHOOK = ApiError(
    500,
    "InternalError",
    'Internal error occurred: failed calling webhook "validator.pytorchjob": failed to call '
    'webhook: Post "https://training-operator": no endpoints available',
)
OF_QUOTA = 'pytorchjobs.kubeflow.org "bot-a1" is forbidden: '
FULL = ApiError(403, "Forbidden", f"{OF_QUOTA}exceeded quota: jobs, requested: count/x=1")
UNCOUNTED = ApiError(403, "Forbidden", f"{OF_QUOTA}status unknown for quota: jobs, resources: x")
NO_RIGHT = ApiError(403, "Forbidden", 'User "operator" cannot create resource "pytorchjobs"')

BY_A_WEBHOOK = 'admission webhook "policy.acme.io" denied the request: it cannot have resource x'
BY_A_POLICY = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: it cannot be"
DENIALS = [
    *((code, "", BY_A_WEBHOOK) for code in (401, 403, 404, 409, 429, 500, 503)),
    (
        413,
        "RequestEntityTooLarge",
        f'pytorchjobs.kubeflow.org "bot-a1" is forbidden: {BY_A_POLICY}',
    ),
]


async def test_a_pytorchjob_is_not_made_if_a_sibling_could_not_be() -> None:
    bench = Bench()
    bench.refusals["Role"] = SLOW
    with pytest.raises(RetryLater):
        await bench.do_pass()
    assert "PyTorchJob" not in bench.created
    bench.refusals.clear()
    await bench.do_pass()
    assert bench.created[-1] == "PyTorchJob"


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        ("PyTorchJob", ApiError(403, "Forbidden", '"bot-a1" is forbidden: failed quota: gpus')),
        ("PyTorchJob", ApiError(422, "Invalid", "denied by policy: exceeded quota")),
        ("PyTorchJob", ApiError(400, "BadRequest", "admission webhook denied: exceeded quota")),
        ("PyTorchJob", ApiError(403, "Forbidden", 'webhook "x" denied: images cannot be old')),
        ("Lease", ApiError(422, "Invalid", "spec cannot be empty")),
        ("Lease", ApiError(403, "Forbidden", "the name cannot be used")),
        *(("PyTorchJob", ApiError(*denial)) for denial in DENIALS),
    ],
)
async def test_a_refusal_by_the_cluster_ends_the_job_in_its_words(
    kind: str, refusal: ApiError
) -> None:
    bench = Bench()
    bench.refusals[kind] = refusal
    await bench.do_pass()
    truth, reason, message = bench.told("Stalled")
    assert (truth, reason) == ("True", "BackendRefused")
    assert f"{kind} bot-a1: {refusal.message}" in message
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
        (NO_PAGE, "BackendUnavailable", "does not serve kubeflow.org/v1 PyTorchJob"),
        (NO_RESOURCE, "BackendUnavailable", "does not serve kubeflow.org/v1 PyTorchJob"),
        (NO_WEBHOOK, "BackendUnavailable", "bot-a1 has to pass a webhook that does not answer: In"),
        (NO_RIGHT, "OperatorForbidden", 'may not write PyTorchJob bot-a1: User "operator" cannot'),
        (FULL, "BackendRefused", "PyTorchJob bot-a1 waits for room in a ResourceQuota: pytorchj"),
        (UNCOUNTED, "BackendRefused", "waits for room in a ResourceQuota: pytorchjobs"),
    ],
)
async def test_what_passes_or_an_administrator_must_do_is_waited_for(
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
    bench = Bench()
    bench.refusals["PyTorchJob"] = refusal
    await bench.do_pass()
    bench.world.now += timedelta(seconds=SETTINGS.start_timeout_seconds)
    assert await bench.do_pass() == 0
    truth, told, message = bench.told("Stalled")
    assert (truth, told) == ("True", "StartTimeout")
    assert words in message


@pytest.mark.parametrize(
    "refusal",
    [
        ApiError(404, "NotFound", 'namespaces "team" not found'),
        ApiError(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
        ApiError(504, "Timeout", "the server was unable to return a response in time"),
        ApiError(429, "TooManyRequests", "the server has received too many requests"),
    ],
    ids=str,
)
async def test_what_passes_is_tried_again(refusal: ApiError) -> None:
    bench = Bench()
    bench.refusals["PyTorchJob"] = refusal
    with pytest.raises(RetryLater):
        await bench.do_pass()


async def test_the_uid_of_the_workload_is_recorded_from_the_answer() -> None:
    bench = Bench()
    await bench.do_pass()
    made = bench.world.objects["PyTorchJob", "bot-a1"]["metadata"]["uid"]
    assert bench.status()["attempts"][0]["workloadUid"] == made


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


async def test_a_binding_is_made_when_its_role_is_there() -> None:
    bench = Bench()
    bench.api.turns["Role"] = 10
    await bench.do_pass()
    assert bench.created.index("Role") < bench.created.index("RoleBinding")


async def test_a_failed_write_leaves_none_of_its_siblings_half_way() -> None:
    bench = Bench()
    bench.refusals["Role"] = SLOW
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


async def test_a_pod_that_is_asked_to_go_is_there_until_it_has_gone() -> None:
    bench = Bench()
    for _ in range(2):
        await bench.do_pass()
        bench.world.train_operator()
    bench.world.drop("PyTorchJob", "bot-a1")
    await bench.do_pass()
    bench.world.now += COLLECTED
    await bench.do_pass()
    pod = bench.world.find("Pod", "bot-a1-master-0")
    assert pod is not None
    assert pod["metadata"].get("deletionGracePeriodSeconds") == GRACE
    assert bench.cache.find(KEY, "Pod", "bot-a1-master-0") is not None

"""What a pass does when requests are refused, names are taken, and the cache is behind."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.job import KIND
from finetune_operator.api import ApiError
from finetune_operator.backends.pytorchjob import PyTorchJob
from finetune_operator.cache import Cache, Key
from finetune_operator.events import Recorder
from finetune_operator.queue import RetryLater
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings
from finetune_operator.sync import Synchroniser
from support.bot_job import bot_job
from support.model_cluster import ModelApi
from support.model_world import World

Json = Any
KEY = Key("team", "bot")
SETTINGS = Settings(trainer_image="trainer:1")


class Bench:
    """An operator on a World in which `refusals` says how creating a kind is refused."""

    def __init__(self, **spec: Json) -> None:
        self.world = World()
        self.refusals: dict[str, ApiError] = {}
        self.created: list[str] = []
        self.ended: list[str] = []
        self.world.add(bot_job(**spec))
        self.cache = Cache()
        self.api = ModelApi(self.world, self._check)
        self.reconciler = Reconciler(
            self.api,
            self.cache,
            SETTINGS,
            PyTorchJob(),
            clock=lambda: self.world.now,
            recorder=Recorder(self.api),
            on_attempt_end=self.ended.append,
        )

    def _check(self, body: Json) -> None:
        self.created.append(body["kind"])
        if refusal := self.refusals.get(body["kind"]):
            raise refusal

    async def relist(self) -> None:
        await Synchroniser(self.api, self.cache, (), lambda key: None).relist()

    async def do_pass(self) -> float | None:
        await self.relist()
        return await self.reconciler.reconcile(KEY)

    def status(self) -> Json:
        return self.world.job()["status"]

    def told(self, kind: str) -> tuple[str, str, str]:
        found = next(c for c in self.status()["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]


async def test_the_attempt_stands_in_status_before_anything_is_made() -> None:
    bench = Bench()
    seen: list[Json] = []

    def check(body: Json) -> None:
        seen.append(bench.world.job().get("status", {}).get("attempts"))

    bench.api._check = check
    await bench.do_pass()
    assert len(seen) == 7
    assert all(attempts and attempts[-1]["number"] == 1 for attempts in seen)


async def test_the_pytorchjob_comes_last() -> None:
    bench = Bench()
    await bench.do_pass()
    assert bench.created[-1] == "PyTorchJob"
    assert set(bench.created[:-1]) == {
        "ServiceAccount",
        "NetworkPolicy",
        "ConfigMap",
        "Role",
        "RoleBinding",
        "Lease",
    }


async def test_a_pytorchjob_is_not_made_if_a_sibling_could_not_be() -> None:
    bench = Bench()
    bench.refusals["Role"] = ApiError(500, "InternalError", "etcd is slow")
    with pytest.raises(RetryLater):
        await bench.do_pass()
    assert "PyTorchJob" not in bench.created
    bench.refusals.clear()
    await bench.do_pass()
    assert bench.created[-1] == "PyTorchJob"


async def test_a_pass_that_made_something_is_followed_by_another() -> None:
    bench = Bench()
    assert await bench.do_pass() == 0
    assert await bench.do_pass() == 10
    assert bench.status()["attempts"][0]["workloadUid"]


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
    assert refusal.message in message
    assert bench.told("Succeeded")[0] == "False"
    attempt = bench.status()["attempts"][0]
    assert (attempt["state"], attempt["reason"]) == ("Failed", "BackendRefused")
    assert bench.ended == ["BackendRefused"]
    writes = bench.world.writes
    await bench.do_pass()
    assert bench.world.writes == writes


@pytest.mark.parametrize(
    ("refusal", "reason", "words"),
    [
        (ApiError(404, "", "404 page not found"), "BackendUnavailable", "does not serve"),
        (
            ApiError(404, "NotFound", "the server could not find the requested resource"),
            "BackendUnavailable",
            "does not serve",
        ),
        (
            ApiError(403, "Forbidden", 'User "operator" cannot create resource "pytorchjobs"'),
            "OperatorForbidden",
            "cannot create",
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
    assert "ConfigMap bot-a1" in bench.told("Reconciling")[2]
    assert "PyTorchJob" not in bench.created
    assert "labels" not in bench.world.objects["ConfigMap", "bot-a1"]["metadata"]


async def test_an_own_object_that_the_cache_does_not_show_is_adopted() -> None:
    bench = Bench()
    await bench.do_pass()
    bench.cache = bench.reconciler._cache = bench.reconciler._applier._cache = Cache()
    bench.cache.put(bench.world.job())
    writes = bench.world.writes
    await bench.reconciler.reconcile(KEY)
    assert bench.world.writes == writes + 1, "only the workload's uid is recorded"


async def test_a_deleted_jobs_object_is_removed_and_its_name_used() -> None:
    bench = Bench()
    owner = {"kind": KIND, "uid": "uid-of-old", "controller": True}
    labels = {
        "app.kubernetes.io/managed-by": "finetune-operator",
        "finetune.dev/job": "bot",
        "finetune.dev/attempt": "1",
    }
    bench.world.add(foreign(labels=labels, ownerReferences=[owner]))
    await bench.do_pass()
    (kept,) = bench.world.objects["ConfigMap", "bot-a1"]["metadata"]["ownerReferences"]
    assert kept["uid"] == bench.world.job()["metadata"]["uid"]


async def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    bench = Bench()
    await bench.do_pass()
    body = bench.world.objects["ServiceAccount", "bot-finetune"]
    bench.world.store({**body, "metadata": {**body["metadata"], "deletionTimestamp": "now"}})
    assert await bench.do_pass() == 5
    assert "is being deleted" in bench.told("Reconciling")[2]


async def test_what_differs_from_the_plan_is_applied_and_what_an_attempt_was_given_is_not() -> None:
    bench = Bench()
    await bench.do_pass()
    await bench.do_pass()
    for kind, name in [("Role", "bot-a1"), ("ConfigMap", "bot-a1"), ("PyTorchJob", "bot-a1")]:
        body = bench.world.objects[kind, name]
        old = {**body["metadata"], "annotations": {"finetune.dev/plan": "old"}}
        bench.world.store({**body, "metadata": old})
    writes = bench.world.writes
    await bench.do_pass()
    assert bench.world.writes == writes + 1
    told = {
        kind: bench.world.objects[kind, "bot-a1"]["metadata"]["annotations"]["finetune.dev/plan"]
        for kind in ("Role", "ConfigMap", "PyTorchJob")
    }
    assert told["Role"] != "old"
    assert told["ConfigMap"] == told["PyTorchJob"] == "old"


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


async def test_what_was_written_is_known_before_a_watch_shows_it() -> None:
    bench = Bench()
    await bench.do_pass()
    assert await bench.reconciler.reconcile(KEY) == 10
    body = bench.world.objects["Role", "bot-a1"]
    stale = {**body["metadata"], "annotations": {"finetune.dev/plan": "old"}}
    bench.cache.put(bench.world.store({**body, "metadata": stale}))
    assert await bench.reconciler.reconcile(KEY) == 0
    writes = bench.world.writes
    assert await bench.reconciler.reconcile(KEY) == 10
    assert bench.world.writes == writes


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
    assert "Lease bot-a1" in message


async def test_a_refusal_that_only_sounds_like_a_missing_right_is_one_of_the_cluster() -> None:
    bench = Bench()
    bench.refusals["Lease"] = ApiError(422, "Invalid", "spec cannot be empty")
    await bench.do_pass()
    assert bench.told("Stalled")[1] == "BackendRefused"


async def test_a_conflict_makes_the_next_pass_see_the_newest_job() -> None:
    bench = Bench()
    await bench.relist()
    job = bench.world.job()
    bench.world.store({**job, "metadata": {**job["metadata"], "labels": {"edited": "yes"}}})
    with pytest.raises(RetryLater):
        await bench.reconciler.reconcile(KEY)
    assert bench.created == []
    await bench.reconciler.reconcile(KEY)
    assert bench.created[-1] == "PyTorchJob"


async def test_a_job_that_is_gone_is_forgotten() -> None:
    bench = Bench()
    await bench.relist()
    bench.world.drop(KIND, "bot")
    with pytest.raises(RetryLater):
        await bench.reconciler.reconcile(KEY)
    assert bench.cache.job(KEY) is None
    assert await bench.reconciler.reconcile(KEY) is None
    assert bench.created == []


async def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    bench = Bench()
    job = bench.world.job()
    bench.world.store({**job, "metadata": {**job["metadata"], "deletionTimestamp": "now"}})
    assert await bench.do_pass() is None
    assert bench.world.writes == 0


async def test_an_invalid_spec_stalls_with_its_fields_and_goes_on_when_corrected() -> None:
    bench = Bench(training={"epochs": 1, "maxSteps": 2})
    assert await bench.do_pass() is None
    truth, reason, message = bench.told("Stalled")
    assert (truth, reason) == ("True", "InvalidSpec")
    assert "spec.training.maxSteps" in message
    assert bench.told("Ready")[0] == "False"
    assert bench.told("Succeeded")[0] == "Unknown"
    assert bench.created == []
    writes = bench.world.writes
    await bench.do_pass()
    assert bench.world.writes == writes
    job = bench.world.job()
    spec = {**job["spec"], "training": {"epochs": 1}}
    bench.world.store({**job, "spec": spec, "metadata": {**job["metadata"], "generation": 2}})
    await bench.do_pass()
    assert bench.told("Reconciling")[1] == "Pending"
    assert [c["type"] for c in bench.status()["conditions"]] == [
        "Ready",
        "Reconciling",
        "Succeeded",
    ]
    assert bench.status()["observedGeneration"] == 2


async def test_a_status_that_no_operator_wrote_stalls() -> None:
    bench = Bench()
    job = bench.world.job()
    bench.world.store({**job, "status": {"attempts": [{"number": "one"}]}})
    await bench.do_pass()
    assert "status.attempts.0.number" in bench.told("Stalled")[2]


async def test_pods_that_do_not_start_are_asked_about() -> None:
    bench = Bench()
    await bench.do_pass()
    bench.world.train_operator()
    (pod,) = bench.world.all("Pod")
    scheduled = {"type": "PodScheduled", "status": "True"}
    pod["status"]["conditions"] = [{**scheduled, "lastTransitionTime": bench.world.stamp()}]
    bench.world.store(pod)
    asked: list[str] = []

    async def events_of(namespace: str, uid: str) -> list[Json]:
        asked.append(uid)
        message = 'MountVolume.SetUp failed : secret "s3" not found'
        old = {"type": "Normal", "message": "fine", "lastTimestamp": "2026-01-01T00:00:00Z"}
        new = {"type": "Warning", "message": message, "lastTimestamp": "2026-01-02T00:00:00Z"}
        return [new, old]

    bench.api.events_of = events_of  # type: ignore[method-assign]
    await bench.do_pass()
    assert asked == [], "a kubelet is given a moment"
    bench.world.now += timedelta(seconds=3)
    await bench.do_pass()
    assert asked == [pod["metadata"]["uid"]]
    assert bench.told("Reconciling")[1] == "SecretNotFound"


async def test_a_workload_without_pods_is_asked_about() -> None:
    bench = Bench()
    await bench.do_pass()

    async def events_of(namespace: str, uid: str) -> list[Json]:
        return [{"type": "Warning", "message": "pods are forbidden: quota"}]

    bench.api.events_of = events_of  # type: ignore[method-assign]
    bench.world.now += timedelta(seconds=3)
    await bench.do_pass()
    assert bench.told("Reconciling")[1:] == (
        "Pending",
        "attempt 1 is starting; pods are forbidden: quota",
    )

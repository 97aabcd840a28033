"""What a pass does when the cache is behind, a write conflicts, or a job can not be read."""

from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.queue import RetryLater
from support.operator.passes import KEY, SETTINGS, Bench, Json
from support.operator.values import stamp

CALM = {"name": "calm", "banned": {"phrases": ["damn"]}}


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


@pytest.mark.parametrize(
    ("rewards", "made_last"),
    [({}, "PyTorchJob"), ({"method": {"type": "GRPO", "grpo": {"rewards": [CALM]}}}, "Pod")],
)
async def test_the_jobs_own_service_account_names_the_secrets_of_the_registry(
    rewards: Json, made_last: str
) -> None:
    bench = Bench(**rewards)
    await bench.do_pass()
    assert bench.created[-1] == made_last
    assert "imagePullSecrets" not in bench.world.objects["ServiceAccount", "bot-finetune"]
    bench = Bench(**rewards)
    bench.reconciler.settings = replace(SETTINGS, trainer_pull_secrets=("registry", "mirror"))
    await bench.do_pass()
    account = bench.world.objects["ServiceAccount", "bot-finetune"]
    assert account["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]


async def test_a_pass_that_made_something_is_followed_by_another() -> None:
    bench = Bench()
    assert await bench.do_pass() == 0
    assert await bench.do_pass() == 3
    assert bench.status()["attempts"][0]["workloadUid"]


async def test_what_was_written_is_known_before_a_watch_shows_it() -> None:
    bench = Bench()
    await bench.do_pass()
    assert await bench.reconciler.reconcile(KEY) == 3
    body = bench.world.objects["Role", "bot-a1"]
    stale = {**body["metadata"], "annotations": {"finetune.dev/plan": "old"}}
    bench.cache.put(bench.world.store({**body, "metadata": stale}))
    assert await bench.reconciler.reconcile(KEY) == 3
    writes = bench.world.writes
    assert await bench.reconciler.reconcile(KEY) == 3
    assert bench.world.writes == writes


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


async def test_fields_of_a_newer_crd_are_told_of_and_do_not_stop_what_runs() -> None:
    bench = Bench()
    await bench.do_pass()
    await bench.do_pass()
    job = bench.world.job()
    metadata = {**job["metadata"], "generation": 2}
    bench.world.store({**job, "spec": {**job["spec"], "dreams": 1}, "metadata": metadata})
    while not bench.reconciler.recorder._noted.empty():
        bench.reconciler.recorder._noted.get_nowait()
    await bench.do_pass()
    assert bench.told("Reconciling")[1] == "Pending"
    _, transition, _ = bench.reconciler.recorder._noted.get_nowait()
    assert (transition.warning, transition.reason) == (True, "UnknownFields")
    assert "spec.dreams" in transition.message
    for _ in range(2):  # and for as long as they are there
        _, reason, message = bench.told("Reconciling")
        assert (reason, message) == ("Pending", f"attempt 1 is starting; {transition.message}")
        await bench.do_pass()
    job = bench.world.job()
    metadata = {**job["metadata"], "generation": 3}
    spec = {name: part for name, part in job["spec"].items() if name != "dreams"}
    bench.world.store({**job, "spec": spec, "metadata": metadata})
    await bench.do_pass()
    assert bench.told("Reconciling")[2] == "attempt 1 is starting"


async def test_what_the_chart_does_not_allow_stalls_with_the_value_that_would() -> None:
    bench = Bench(model={"uri": "hf://o/m", "cache": {"hostPath": {"path": "/models"}}})
    assert await bench.do_pass() is None
    assert bench.created == []
    truth, reason, message = bench.told("Stalled")
    assert (truth, reason) == ("True", "InvalidSpec")
    assert message.startswith("spec.model.cache.hostPath.path: /models is not among what the ")
    assert "policy.hostPath" in message


async def test_a_run_config_that_the_trainer_would_refuse_stalls_with_its_field() -> None:
    bench = Bench()
    starting = {
        "number": 1,
        "state": "Starting",
        "generation": 1,
        "recipeDigest": "sha256:0",
        "image": "trainer:1",
        "microBatchSize": 3,
        "startTime": stamp(0),
    }
    bench.world.store({**bench.world.job(), "status": {"attempts": [starting]}})
    assert await bench.do_pass() is None
    truth, reason, message = bench.told("Stalled")
    assert (truth, reason) == ("True", "InvalidSpec")
    assert "RunConfig: Value error, globalBatchSize 32 is not a multiple of" in message
    assert bench.status()["attempts"] == [starting]
    assert bench.created == []


async def test_pods_that_do_not_start_are_asked_about() -> None:
    bench = Bench()
    await bench.do_pass()
    bench.world.train_operator()
    (pod,), (workload,) = bench.world.all("Pod"), bench.world.all("PyTorchJob")
    scheduled = {"type": "PodScheduled", "status": "True"}
    pod["status"]["conditions"] = [{**scheduled, "lastTransitionTime": bench.world.stamp()}]
    bench.world.store(pod)
    asked: list[str] = []

    async def events_of(namespace: str, uid: str) -> list[Json]:
        asked.append(uid)
        if uid != pod["metadata"]["uid"]:
            return []
        message = 'MountVolume.SetUp failed : secret "s3" not found'
        old = {"type": "Normal", "message": "fine", "lastTimestamp": "2026-01-01T00:00:00Z"}
        new = {"type": "Warning", "message": message, "lastTimestamp": "2026-01-02T00:00:00Z"}
        return [new, old]

    bench.api.events_of = events_of  # type: ignore[method-assign]
    await bench.do_pass()
    assert asked == [], "a kubelet is given a moment"
    bench.world.now += timedelta(seconds=3)
    await bench.do_pass()
    assert set(asked) == {pod["metadata"]["uid"], workload["metadata"]["uid"]}
    assert bench.told("Reconciling")[1] == "SecretNotFound"


async def test_a_workload_without_pods_is_asked_about() -> None:
    bench = Bench()
    await bench.do_pass()

    async def events_of(namespace: str, uid: str) -> list[Json]:
        refused = {"type": "Warning", "message": "pods are forbidden: quota"}
        repeats = "Error pod bot-a1-master-0 condition message: unready"
        later = {"type": "Warning", "message": repeats, "lastTimestamp": "2026-01-02T00:00:00Z"}
        return [later, refused]

    bench.api.events_of = events_of  # type: ignore[method-assign]
    bench.world.now += timedelta(seconds=3)
    await bench.do_pass()
    _, reason, message = bench.told("Reconciling")
    assert reason == "PodRefused"
    assert "PyTorchJob bot-a1 has 0 of 1 pods: pods are forbidden: quota" in message

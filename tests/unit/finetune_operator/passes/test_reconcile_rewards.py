"""GRPO from pass to pass: hosts that are not allowed, and code that is tried first."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.cluster.api import ApiError
from finetune_operator.cluster.queue import RetryLater
from support.operator.passes import Bench

CODE = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}
FAR = {"name": "far", "http": {"url": "https://judge.example.com/score"}}
NEAR = {"name": "near", "http": {"url": "http://judge/score"}}


def bench(*rewards: dict[str, Any]) -> Bench:
    return Bench(method={"type": "GRPO", "grpo": {"rewards": list(rewards)}})


async def test_a_host_that_is_not_allowed_is_named_and_nothing_is_made() -> None:
    on = bench(FAR)
    await on.do_pass()
    assert on.created == []
    truth, reason, message = on.told("Stalled")
    assert (truth, reason) == ("True", "InvalidSpec")
    assert message.startswith("spec.method.grpo.rewards[far].http.url: judge.example.com is ")
    assert "egress.allowedHosts to [judge.example.com]" in message
    writes = on.world.writes
    await on.do_pass()
    assert on.world.writes == writes


async def test_nor_may_prompts_go_to_a_server_that_is_not_allowed() -> None:
    rollout = {"engine": "OpenAI", "uri": "http://draw.example.com", "adapterDirectory": "/a"}
    on = Bench(method={"type": "GRPO", "grpo": {"rollout": rollout, "rewards": [NEAR]}})
    await on.do_pass()
    assert on.created == []
    truth, reason, message = on.told("Stalled")
    assert (truth, reason) == ("True", "InvalidSpec")
    assert message.startswith("spec.method.grpo.rollout.uri: draw.example.com is ")


async def test_a_job_that_has_begun_goes_on_whatever_is_allowed_since() -> None:
    on = bench(NEAR)
    await on.do_pass()
    assert "PyTorchJob" in on.created
    job = on.world.job()
    method = {"type": "GRPO", "grpo": {"rewards": [FAR]}}
    metadata = {**job["metadata"], "generation": 2}
    on.world.store({**job, "metadata": metadata, "spec": {**job["spec"], "method": method}})
    await on.do_pass()
    assert on.told("Succeeded")[:2] == ("Unknown", "Pending")


async def test_a_job_that_ended_before_its_first_attempt_stays_as_it_ended() -> None:
    on = bench(CODE)
    on.refusals["Pod"] = ApiError(403, "Forbidden", "not such a pod")
    await on.do_pass()
    assert on.told("Succeeded")[:2] == ("False", "BackendRefused")
    rewards_become(on, FAR)
    await on.do_pass()
    assert on.told("Succeeded")[:2] == ("False", "BackendRefused")


async def test_the_check_stands_in_status_before_its_pod_and_needs_its_account_first() -> None:
    on = bench(CODE)
    on.refusals["ServiceAccount"] = ApiError(403, "Forbidden", "exceeded quota")
    await on.do_pass()
    assert "Pod" not in on.created
    assert on.told("Succeeded")[:2] == ("False", "BackendRefused")
    assert on.status()["rewardCheck"]["state"] == "Failed"


async def test_the_jobs_own_image_is_the_one_that_is_tried() -> None:
    method = {"type": "GRPO", "grpo": {"rewards": [CODE]}}
    on = Bench(method=method, workers={"image": "mine:2"})
    await on.do_pass()
    spec = on.world.objects["Pod", "bot-rewards"]["spec"]
    assert {c["image"] for c in (*spec["initContainers"], *spec["containers"])} == {"mine:2"}


async def test_the_check_is_recorded_before_its_pod_is_made() -> None:
    on = bench(CODE)
    on.refusals["Pod"] = ApiError(500, "InternalError", "etcd is slow")
    with pytest.raises(RetryLater):
        await on.do_pass()
    assert on.status()["rewardCheck"]["state"] == "Running"


FULL = 'pods "bot-rewards" is forbidden: exceeded quota: team, requested: cpu=100m, used: cpu=2'


async def test_a_full_quota_is_waited_for() -> None:
    on = bench(CODE)
    on.refusals["Pod"] = ApiError(403, "Forbidden", FULL)
    assert await on.do_pass() == 30
    truth, reason, message = on.told("Reconciling")
    assert (truth, reason) == ("True", "BackendRefused")
    assert f"Pod bot-rewards waits for room in a ResourceQuota: {FULL}" in message
    writes = on.world.writes
    await on.do_pass()
    assert on.world.writes == writes
    on.refusals.clear()
    await on.do_pass()
    assert on.created[-1] == "Pod"


async def test_a_full_quota_is_not_waited_for_beyond_the_jobs_deadline() -> None:
    method = {"type": "GRPO", "grpo": {"rewards": [CODE]}}
    on = Bench(method=method, runPolicy={"activeDeadlineSeconds": 60})
    on.refusals["Pod"] = ApiError(403, "Forbidden", FULL)
    await on.do_pass()
    on.world.now += timedelta(seconds=60)
    await on.do_pass()
    assert on.told("Stalled")[:2] == ("True", "DeadlineExceeded")


async def test_a_quota_that_asks_for_limits_is_not_waited_for() -> None:
    on = bench(CODE)
    on.refusals["Pod"] = ApiError(403, "Forbidden", "failed quota: team: must specify pids")
    await on.do_pass()
    assert on.told("Stalled")[:2] == ("True", "BackendRefused")


async def test_a_pod_that_a_lost_node_keeps_is_replaced() -> None:
    on = bench(CODE)
    await on.do_pass()
    on.world.kubelet("bot-rewards")
    await on.do_pass()
    first = on.status()["rewardCheck"]["podUid"]
    on.world.unreachable.add("bot-rewards")
    on.world.delete_pod("bot-rewards")
    for _ in range(10):
        on.world.now += timedelta(seconds=10)
        await on.do_pass()
    assert on.created.count("Pod") == 2
    assert on.status()["rewardCheck"]["failures"] == 1
    assert on.world.objects["Pod", "bot-rewards"]["metadata"]["uid"] != first


async def test_the_check_and_then_the_attempt() -> None:
    on = bench(CODE)
    await on.do_pass()
    assert on.created[-1] == "Pod"
    assert "attempts" not in on.status()
    on.world.kubelet("bot-rewards")
    await on.do_pass()
    assert on.status()["rewardCheck"]["podUid"]
    on.world.end("bot-rewards", "Succeeded")
    await on.do_pass()
    assert on.created.count("Pod") == 1
    assert on.created[-1] == "PyTorchJob"
    assert on.status()["rewardCheck"]["state"] == "Passed"


def rewards_become(on: Bench, *rewards: dict[str, Any]) -> None:
    job = on.world.job()
    metadata = {**job["metadata"], "generation": job["metadata"]["generation"] + 1}
    method = {"type": "GRPO", "grpo": {"rewards": list(rewards)}}
    on.world.store({**job, "metadata": metadata, "spec": {**job["spec"], "method": method}})


async def test_code_that_is_changed_meanwhile_is_tried_itself() -> None:
    on = bench(CODE)
    await on.do_pass()
    on.world.kubelet("bot-rewards")
    await on.do_pass()
    rewards_become(on, {**CODE, "python": {**CODE["python"], "function": "other"}})
    on.world.end("bot-rewards", "Succeeded")
    for _ in range(3):
        await on.do_pass()
        assert "attempts" not in on.status()
    assert on.created.count("Pod") == 2
    assert on.status()["rewardCheck"]["failures"] == 0
    on.world.kubelet("bot-rewards")
    on.world.end("bot-rewards", "Succeeded")
    await on.do_pass()
    assert on.status()["rewardCheck"]["state"] == "Passed"
    assert on.created[-1] == "PyTorchJob"


async def test_code_that_is_taken_out_meanwhile_holds_nothing_up() -> None:
    on = bench(CODE)
    await on.do_pass()
    on.world.kubelet("bot-rewards")
    rewards_become(on, NEAR)
    await on.do_pass()
    assert on.created[-1] == "PyTorchJob"
    assert ("Pod", "bot-rewards") not in on.world.objects
    assert "rewardCheck" not in on.status()


async def test_only_the_operators_own_pods_are_removed_at_once() -> None:
    on = bench(CODE)
    await on.do_pass()
    on.world.kubelet("bot-rewards")
    await on.do_pass()
    removed: dict[str, bool] = {}
    on.api.on_deleted = removed.__setitem__
    account = on.world.objects["ServiceAccount", "bot-finetune"]["metadata"]
    stray = {"labels": {**account["labels"], "finetune.dev/attempt": "9"}}
    owner = {"kind": "FineTuneJob", "name": "bot", "controller": True}
    owner["uid"] = on.world.job()["metadata"]["uid"]
    metadata = {"name": "bot-a9", **stray, "ownerReferences": [owner]}
    on.world.add({"kind": "Lease", "metadata": metadata})
    rewards_become(on, NEAR)
    await on.do_pass()
    assert removed == {"Pod": True, "Lease": False}

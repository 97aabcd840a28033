"""Pods that are taken away while they run, refused or held, as both operators see it.

The stand-in plays training-operator, or the real one where `KUBEBUILDER_ASSETS` holds it; kubelets
are played by the test.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.judge.fence import COLLECTED
from kube_support import processes, target
from support.cluster.bench import Bench, now
from support.cluster.installation import installed

Json = Any


@pytest.fixture
async def bench(
    api: Any, namespace: str, eventually: Any, kubeconfig: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    bench = await installed(api, namespace, eventually, kubeconfig, tmp_path)
    with processes.running(tmp_path) as started:
        flag = f"--namespace={namespace}"
        target.start_training_operator(started, kubeconfig, flag)
        bench.start()
        try:
            yield bench
        finally:
            bench.stop(signal.SIGKILL)


async def run(bench: Bench) -> list[str]:
    """Apply a job; bind and start the pods that training-operator makes of it."""
    await bench.apply()
    names = ["bot-a1-master-0", "bot-a1-worker-0"]
    for name in names:
        await bench.until("pods", name, lambda _: True, name)
        node = {"apiVersion": "v1", "kind": "Node", "name": "node-7"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
        path = bench.path("pods", name, "binding")
        made = await bench.api.post(path, {**binding, "target": node})
        assert made.status == 201, made.body
    await bench.pods_run(names)
    await bench.until_reason("Running")
    return names


async def ended(bench: Bench) -> Json:
    job = await bench.until(
        "finetunejobs",
        "bot",
        lambda b: b["status"]["attempts"][0].get("reason"),
        "the end of attempt 1",
    )
    return job["status"]["attempts"][0]


@pytest.mark.slow
async def test_a_pod_that_is_deleted_fails_its_pytorchjob_at_once_and_says_so(bench: Bench) -> None:
    _, worker = await run(bench)
    await bench.api.delete(bench.path("pods", worker))
    attempt = await ended(bench)
    assert (attempt["reason"], attempt["message"]) == ("PodLost", f"{worker} was deleted")
    still = await bench.get("pods", worker)
    assert still is not None
    assert still["status"]["phase"] == "Running", "it saves a checkpoint"


async def test_a_pod_that_is_drained_names_the_eviction(bench: Bench) -> None:
    _, worker = await run(bench)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": worker}}
    made = await bench.api.post(bench.path("pods", worker, "eviction"), eviction)
    assert made.status == 201, made.body
    attempt = await ended(bench)
    assert attempt["reason"] == "Evicted"
    assert attempt["message"] == f"{worker}: Eviction API: evicting"


@pytest.mark.slow
async def test_a_node_that_is_lost_is_named_before_it_confirms_anything(bench: Bench) -> None:
    _, worker = await run(bench)
    told = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": now(),
    }
    pod = await bench.get("pods", worker)
    conditions = [*pod["status"]["conditions"], told]
    await bench.api.merge(
        bench.path("pods", worker, "status"), {"status": {"conditions": conditions}}
    )
    await bench.api.delete(bench.path("pods", worker))
    attempt = await ended(bench)
    assert attempt["reason"] == "NodeLost"
    assert attempt["message"] == f"{worker}: {told['message']}"


@pytest.mark.slow
@pytest.mark.skipif(target.real_training_operator() is None, reason="the emulator has no quotas")
async def test_a_quota_that_refuses_a_pod_and_a_queue_that_holds_them_are_told_of(
    bench: Bench,
) -> None:
    hard, path = {"pods": "1"}, bench.path("resourcequotas", "one")
    quota = {"metadata": {"name": "one"}, "spec": {"hard": hard}}
    await bench.api.post(bench.path("resourcequotas"), quota)
    # The quota controller's part.
    await bench.api.merge(f"{path}/status", {"status": {"hard": hard, "used": {"pods": "0"}}})
    await bench.apply()
    job = await bench.until_reason("PodRefused")
    (message,) = {c["message"] for c in job["status"]["conditions"]}
    assert message.startswith("PyTorchJob bot-a1 has 1 of 2 pods: Error creating: pods")
    assert "exceeded quota: one, requested: pods=1" in message
    held = {"spec": {"runPolicy": {"suspend": True}}}
    await bench.api.merge(bench.path("pytorchjobs", "bot-a1"), held)
    await bench.until_reason("Queued")


@pytest.mark.slow
@pytest.mark.skipif(target.real_training_operator() is None, reason="the emulator has no quotas")
async def test_a_service_that_a_quota_refuses_is_told_of_while_a_pod_waits_for_it(
    bench: Bench,
) -> None:
    hard, path = {"services": "0"}, bench.path("resourcequotas", "none")
    quota = {"metadata": {"name": "none"}, "spec": {"hard": hard}}
    await bench.api.post(bench.path("resourcequotas"), quota)
    await bench.api.merge(f"{path}/status", {"status": {"hard": hard, "used": {"services": "0"}}})
    await bench.apply()
    job = await bench.until_reason("PodRefused")
    (message,) = {c["message"] for c in job["status"]["conditions"]}
    assert message.startswith("PyTorchJob bot-a1 has 2 of 2 pods: Error creating: services")
    assert "exceeded quota: none, requested: services=1" in message


@pytest.mark.slow
@pytest.mark.skipif(target.real_training_operator() is None, reason="the stand-in knows no queue")
async def test_a_queue_that_takes_a_running_job_back_is_named(bench: Bench) -> None:
    await run(bench)
    held = {"spec": {"runPolicy": {"suspend": True}}}
    await bench.api.merge(bench.path("pytorchjobs", "bot-a1"), held)
    attempt = await ended(bench)
    assert attempt["reason"] == "Preempted"
    assert "PyTorchJob bot-a1 is suspended, as by a queue" in attempt["message"]


@pytest.mark.slow
@pytest.mark.skipif(target.real_training_operator() is None, reason="the emulator orphans nothing")
async def test_pods_that_were_orphaned_are_asked_to_go_before_the_next_attempt(
    bench: Bench,
) -> None:
    names = await run(bench)
    await bench.api.delete(bench.path("pytorchjobs", "bot-a1"), propagationPolicy="Orphan")
    assert (await ended(bench))["reason"] == "PodLost"
    for name in names:
        pod = await bench.until(
            "pods", name, lambda b: not b["metadata"].get("ownerReferences"), f"{name} orphaned"
        )
        assert "deletionTimestamp" not in pod["metadata"]
    assert await bench.get("pytorchjobs", "bot-a2") is None

    async def asked() -> bool:
        pods = [await bench.get("pods", name) for name in names]
        return all(pod is None or "deletionTimestamp" in pod["metadata"] for pod in pods)

    await bench.eventually(asked, "the operator to ask them to go", 2 * COLLECTED.total_seconds())
    assert await bench.get("pytorchjobs", "bot-a2") is None, "they have their grace"
    for name in names:  # as their kubelet does
        await bench.api.delete(bench.path("pods", name), gracePeriodSeconds="0")
    await bench.until("pytorchjobs", "bot-a2", lambda _: True, "attempt 2")


@pytest.mark.slow
@pytest.mark.skipif(target.real_training_operator() is None, reason="the emulator has no quotas")
async def test_a_full_quota_of_pytorchjobs_is_waited_for(bench: Bench) -> None:
    kind = "count/pytorchjobs.kubeflow.org"
    hard, path = {kind: "0"}, bench.path("resourcequotas", "jobs")
    quota = {"metadata": {"name": "jobs"}, "spec": {"hard": hard}}
    await bench.api.post(bench.path("resourcequotas"), quota)
    await bench.api.merge(f"{path}/status", {"status": {"hard": hard, "used": {kind: "0"}}})
    await bench.apply()
    job = await bench.until_reason("BackendRefused")
    (message,) = {c["message"] for c in job["status"]["conditions"]}
    assert message.startswith("PyTorchJob bot-a1 waits for room in a ResourceQuota: ")
    assert "exceeded quota: jobs" in message
    await bench.api.delete(path)

    async def made() -> bool:
        return await bench.get("pytorchjobs", "bot-a1") is not None

    await bench.eventually(made, "attempt 1, which looks every 30 s", 90)

"""PyTorchJobs: two pods that meet, and what goes wrong with them."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kube_emulator.client import CONFIG_MAPS, PODS, SERVICES, ApiError, Object
from kube_emulator.training_operator.controller import JOBS
from kube_support.pods import NAMESPACE, Pods, eventually

ALL_REDUCE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.full((3,), float(dist.get_rank() + 1))
dist.all_reduce(value)
print("sum", value.tolist(), "of", dist.get_world_size(), flush=True)
dist.destroy_process_group()
"""


NODE_OPTIONS = ["--back-off=0.3"]


def manifest(name: str, master: str, worker: str | None = None, **more: Any) -> Object:
    """A job whose pods run shell scripts; `volumes` and `policy` are for all of them."""
    policy = more.pop("policy", "Never")
    grace = more.pop("grace", 0)
    volumes, mounts = more.pop("volumes", []), more.pop("mounts", [])

    def replica(script: str) -> Object:
        container = {"name": "pytorch", "image": "alpine", "volumeMounts": mounts}
        container["command"] = ["/bin/sh", "-c", script]
        pod = {
            "containers": [container],
            "volumes": volumes,
            "terminationGracePeriodSeconds": grace,
        }
        return {"replicas": 1, "restartPolicy": policy, "template": {"spec": pod}}

    specs = {"Master": replica(master)} | ({"Worker": replica(worker)} if worker else {})
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {"nprocPerNode": "1", "pytorchReplicaSpecs": specs, "runPolicy": more},
    }


async def submit(pods: Pods, short: str, *scripts: str, **more: Any) -> str:
    name = pods.name(short)
    await pods.put(JOBS, manifest(name, *scripts, **more))
    return name


def conditions(job: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in job.get("status", {}).get("conditions", [])}


async def until_condition(pods: Pods, name: str, kind: str) -> Object:
    """The job once it has the condition; an end of another kind tells what its pods say."""
    job: Object = {}

    async def holds() -> bool:
        job.update(await pods.get(name, JOBS))
        true = {one for one, value in conditions(job).items() if value == "True"}
        if kind not in true and true & {"Succeeded", "Failed"}:
            raise AssertionError(f"{job['status']}\n{await pods.statuses(name)}")
        return kind in true

    try:
        await eventually(holds)
    except TimeoutError:
        raise AssertionError(f"{job.get('status')}\n{await pods.statuses(name)}") from None
    return job


async def test_two_pods_reduce_over_gloo(pods: Pods) -> None:
    """torchrun with the addresses exactly as the stand-in hands them out."""
    script = pods.name("script")
    data = {"run.py": ALL_REDUCE}
    await pods.put(CONFIG_MAPS, {"kind": "ConfigMap", "metadata": {"name": script}, "data": data})
    command = f"exec {sys.executable} -m torch.distributed.run --nnodes=2 /script/run.py"
    volumes = [{"name": "s", "configMap": {"name": script}}]
    mounts = [{"name": "s", "mountPath": "/script"}]
    name = await submit(pods, "gloo", command, command, volumes=volumes, mounts=mounts)
    job = await until_condition(pods, name, "Succeeded")
    assert conditions(job) == {"Created": "True", "Running": "False", "Succeeded": "True"}
    for pod in (f"{name}-master-0", f"{name}-worker-0"):
        await pods.until_phase(pod, "Succeeded")
        lines = (await pods.logs(pod, "container=pytorch")).splitlines()
        assert "sum [3.0, 3.0, 3.0] of 2" in lines


async def test_jobs_at_work_meet_at_ports_of_their_own(pods: Pods) -> None:
    ports = set()
    for short in ("one", "twin"):
        name = await submit(pods, short, "exec sleep 600", "exec sleep 600")
        told = set()
        for pod in (f"{name}-master-0", f"{name}-worker-0"):
            spec = (await pods.until_phase(pod, "Running"))["spec"]
            told |= {e["value"] for e in spec["containers"][0]["env"] if e["name"] == "MASTER_PORT"}
        assert len(told) == 1
        ports |= told
    assert len(ports) == 2


async def test_any_failed_replica_fails_the_job(pods: Pods) -> None:
    name = await submit(pods, "fail", "exec sleep 600", "exit 5")
    job = await until_condition(pods, name, "Failed")
    assert conditions(job)["Running"] == "False"
    assert (await pods.get(f"{name}-master-0"))["status"]["phase"] == "Running"
    await pods.client.delete(JOBS.path(NAMESPACE, name))
    await pods.until_gone(f"{name}-master-0")


async def test_a_sidecar_keeps_pod_and_job_running_after_their_trainer(pods: Pods) -> None:
    job = manifest(pods.name("mesh"), "exit 5")
    spec = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    proxy = {"name": "proxy", "image": "alpine", "command": ["/bin/sh", "-c", "exec sleep 600"]}
    spec["containers"].append(proxy)
    name, master = job["metadata"]["name"], f"{job['metadata']['name']}-master-0"
    await pods.put(JOBS, job)

    async def has_ended() -> bool:
        pod = await pods.find(master) or {}
        found = pod.get("status", {}).get("containerStatuses", [])
        ends = {one["name"]: one["state"].get("terminated") for one in found}
        return bool(ends.get("pytorch"))

    await eventually(has_ended)
    assert (await pods.get(master))["status"]["phase"] == "Running"
    assert conditions(await until_condition(pods, name, "Running")).get("Failed") is None
    await pods.client.delete(JOBS.path(NAMESPACE, name))
    await pods.until_gone(master)


async def test_a_deleted_worker_comes_back_without_a_word(pods: Pods) -> None:
    """The quirk that makes pod uids the identity of an attempt."""
    name = await submit(pods, "ghost", "exec sleep 600", "exec sleep 600")
    first = await pods.until_phase(f"{name}-worker-0", "Running")
    before = await until_condition(pods, name, "Running")
    await pods.delete(f"{name}-worker-0", grace_seconds=0)
    uid = first["metadata"]["uid"]

    async def replaced() -> bool:
        pod = await pods.find(f"{name}-worker-0")
        return pod is not None and pod["metadata"]["uid"] != uid

    await eventually(replaced)
    assert conditions(await pods.get(name, JOBS)) == conditions(before)
    await pods.client.delete(JOBS.path(NAMESPACE, name))
    await pods.until_gone(f"{name}-worker-0")


async def test_suspend_takes_the_pods_and_resume_makes_new_ones(pods: Pods) -> None:
    name = await submit(pods, "hold", "exec sleep 600")
    await until_condition(pods, name, "Running")
    first = (await pods.get(f"{name}-master-0"))["metadata"]["uid"]
    await pods.client.patch(JOBS.path(NAMESPACE, name), {"spec": {"runPolicy": {"suspend": True}}})
    held = await until_condition(pods, name, "Suspended")
    assert "startTime" not in held["status"]
    await pods.until_gone(f"{name}-master-0")
    await pods.client.patch(JOBS.path(NAMESPACE, name), {"spec": {"runPolicy": {"suspend": False}}})
    await until_condition(pods, name, "Running")
    assert (await pods.get(f"{name}-master-0"))["metadata"]["uid"] != first
    await pods.client.delete(JOBS.path(NAMESPACE, name))
    await pods.until_gone(f"{name}-master-0")


async def test_a_retryable_exit_code_makes_a_new_pod(pods: Pods) -> None:
    script = "kill -9 1 2>/dev/null; exit 130"
    name = await submit(pods, "code", script, policy="ExitCode")
    await until_condition(pods, name, "Restarting")
    await pods.client.delete(JOBS.path(NAMESPACE, name))


async def test_a_deadline_counts_when_something_else_happens(pods: Pods) -> None:
    name = await submit(pods, "late", "exec sleep 600", activeDeadlineSeconds=3)
    running = await until_condition(pods, name, "Running")
    end = datetime.fromisoformat(running["status"]["startTime"]) + timedelta(seconds=3)
    await eventually(lambda: datetime.now(UTC) > end)
    await pods.client.patch(
        JOBS.path(NAMESPACE, name), {"metadata": {"annotations": {"something": "else"}}}
    )
    job = await until_condition(pods, name, "Failed")
    [failed] = [one for one in job["status"]["conditions"] if one["type"] == "Failed"]
    assert failed["message"].endswith("because it was active longer than specified deadline")
    await pods.client.delete(JOBS.path(NAMESPACE, name))


async def test_a_job_of_the_same_name_waits_for_the_old_pods(pods: Pods) -> None:
    script = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done"
    name = await submit(pods, "twice", script, grace=30)
    first = (await pods.until_phase(f"{name}-master-0", "Running"))["metadata"]["uid"]
    await pods.client.delete(JOBS.path(NAMESPACE, name))
    await pods.until_gone(name, JOBS)
    await pods.put(JOBS, manifest(name, "exit 0"))
    await until_condition(pods, name, "Succeeded")
    assert (await pods.get(f"{name}-master-0"))["metadata"]["uid"] != first


@pytest.mark.parametrize(
    ("policy", "left"), [("None", {"master", "worker"}), ("Running", {"master"}), ("All", set())]
)
async def test_clean_pod_policy(pods: Pods, policy: str, left: set[str]) -> None:
    name = await submit(
        pods, f"clean-{policy.lower()}", "sleep 1", "exec sleep 600", cleanPodPolicy=policy
    )
    await until_condition(pods, name, "Succeeded")

    async def remaining() -> set[str]:
        found = await pods.client.get(PODS.path(NAMESPACE))
        names = {one["metadata"]["name"] for one in found["items"]}
        return {kind for kind in ("master", "worker") if f"{name}-{kind}-0" in names}

    async def is_clean() -> bool:
        return await remaining() == left

    await eventually(is_clean)
    await pods.client.delete(JOBS.path(NAMESPACE, name))


async def test_time_to_live_and_garbage_collection(pods: Pods) -> None:
    name = await submit(pods, "ttl", "true", ttlSecondsAfterFinished=1)
    await pods.until_event(name, "PyTorchJobSucceeded")
    await pods.until_gone(name, JOBS)
    await pods.until_gone(f"{name}-master-0")

    async def no_service_left() -> bool:
        found = await pods.client.get(SERVICES.path(NAMESPACE))
        return not any(one["metadata"]["name"].startswith(name) for one in found["items"])

    await eventually(no_service_left)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rename", "at least one container with name pytorch"),
        ("two masters", "must be 1"),
        ("no replicas", "must be 1"),
        ("name", "DNS-1035"),
        ("chief", "supported replica types are Master and Worker"),
        ("no image", "image must be specified"),
    ],
)
async def test_malformed_jobs_are_refused(pods: Pods, change: str, words: str) -> None:
    job = manifest(pods.name("bad"), "true")
    master = job["spec"]["pytorchReplicaSpecs"]["Master"]
    container = master["template"]["spec"]["containers"][0]
    if change == "rename":
        container["name"] = "main"
    elif change == "two masters":
        master["replicas"] = 2
    elif change == "no replicas":
        del master["replicas"]
    elif change == "name":
        job["metadata"]["name"] = "1-digit-first"
    elif change == "chief":
        job["spec"]["pytorchReplicaSpecs"]["Chief"] = master
    else:
        container["image"] = ""
    with pytest.raises(ApiError, match=words) as refusal:
        await pods.put(JOBS, job)
    assert refusal.value.status == 422

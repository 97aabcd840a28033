"""Pods on the node: how they start, restart and end."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from kube_support.cluster import Cluster
from kube_support.pods import Pods, condition, eventually, sh, state, status_of

NODE_OPTIONS = ["--back-off=0.3"]


async def test_a_pod_runs_to_its_end(pods: Pods) -> None:
    script = "echo hello; echo done > /dev/termination-log"
    name = await pods.create("ok", sh(script))
    pod = await pods.until_phase(name, "Succeeded", "Failed")
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["status"]["podIP"].startswith("127.77.")
    ended = state(pod)["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (0, "Completed", "done\n")
    assert condition(pod, "Ready")["reason"] == "PodCompleted"
    assert await pods.logs(name) == "hello\n"


@pytest.mark.parametrize(
    ("policy", "message"),
    [("FallbackToLogsOnError", "last words\n"), ("File", None)],
)
async def test_the_log_stands_in_for_a_termination_message(
    pods: Pods, policy: str, message: str | None
) -> None:
    container = sh("echo last words; exit 1", terminationMessagePolicy=policy)
    name = await pods.create("words", container)
    pod = await pods.until_phase(name, "Failed")
    assert state(pod)["terminated"].get("message") == message


async def test_a_termination_message_is_cut(pods: Pods) -> None:
    script = "head -c 5000 /dev/zero | tr '\\0' x > /said/here"
    container = sh(script, terminationMessagePath="/said/here")
    name = await pods.create("long", container)
    pod = await pods.until_phase(name, "Succeeded")
    assert state(pod)["terminated"]["message"] == "x" * 4096


async def test_on_failure_restarts_until_it_succeeds(pods: Pods) -> None:
    volume = {"name": "v", "emptyDir": {}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    script = "echo try >> /v/tries; echo n$(wc -l < /v/tries); [ $(wc -l < /v/tries) = 3 ]"
    container = sh(script, volumeMounts=mounts)
    name = await pods.create("again", container, restartPolicy="OnFailure", volumes=[volume])
    waiting = await pods.until(name, lambda pod: "waiting" in state(pod) and restarts(pod) == 1)
    assert state(waiting)["waiting"]["reason"] == "CrashLoopBackOff"
    assert waiting["status"]["phase"] == "Running"
    pod = await pods.until_phase(name, "Succeeded", "Failed")
    assert pod["status"]["phase"] == "Succeeded"
    assert restarts(pod) == 2
    assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 1
    assert await pods.logs(name) == "n3\n"
    assert await pods.logs(name, "previous=true") == "n2\n"


def restarts(pod: dict[str, object]) -> int:
    return int(status_of(pod).get("restartCount", 0))


async def test_init_containers_run_in_order_and_first(pods: Pods) -> None:
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    first = sh("sleep 0.3; echo one >> /v/order", **mounts) | {"name": "i1", "image": "alpine"}
    second = sh("echo two >> /v/order", **mounts) | {"name": "i2", "image": "alpine"}
    main = sh("echo main >> /v/order; cat /v/order", **mounts)
    volumes = [{"name": "v", "emptyDir": {}}]
    name = await pods.create("init", main, initContainers=[first, second], volumes=volumes)
    pod = await pods.until_phase(name, "Succeeded")
    assert await pods.logs(name, "container=c0") == "one\ntwo\nmain\n"
    assert status_of(pod, "i1")["ready"] is True


async def test_a_failing_init_container_fails_the_pod_before_main(pods: Pods) -> None:
    init = sh("exit 4") | {"name": "i", "image": "alpine"}
    name = await pods.create("noinit", sh("echo never"), initContainers=[init])
    pod = await pods.until_phase(name, "Failed", "Succeeded")
    assert pod["status"]["phase"] == "Failed"
    assert state(pod)["waiting"]["reason"] == "PodInitializing"
    assert condition(pod, "Initialized")["status"] == "False"


async def test_a_sidecar_frames_the_main_container(pods: Pods) -> None:
    """It has started, by its probe, before main does; it is told to stop after main has ended."""
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    side = {
        "name": "side",
        "image": "alpine",
        "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["test", "-e", "/v/up"]}, "periodSeconds": 1},
        **mounts,
        **sh(
            "trap 'cat /v/main; echo stopped; exit 0' TERM; sleep 0.3; touch /v/up; echo up;"
            "while :; do sleep 0.05; done"
        ),
    }
    main = sh("test -e /v/up && echo main ran > /v/main", **mounts)
    volumes = [{"name": "v", "emptyDir": {}}]
    name = await pods.create("sidecar", main, initContainers=[side], volumes=volumes)
    pod = await pods.until_phase(name, "Succeeded", "Failed")
    assert pod["status"]["phase"] == "Succeeded"
    assert state(pod, "side")["terminated"]["exitCode"] == 0
    assert await pods.logs(name, "container=side") == "up\nmain ran\nstopped\n"


async def test_deletion_asks_and_waits(pods: Pods) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    name = await pods.create("polite", sh(script))
    await pods.until_phase(name, "Running")

    async def is_up() -> bool:
        return await pods.logs(name) == "up\n"

    await eventually(is_up)
    following = asyncio.create_task(pods.logs(name, "follow=true"))
    await pods.delete(name)
    await pods.until_gone(name)
    assert await following == "up\nasked\n"


async def test_a_forced_deletion_leaves_nothing_behind(pods: Pods, cluster: Cluster) -> None:
    name = await pods.create("forced", sh("exec sleep 600"))
    pod = await pods.until_phase(name, "Running")
    pid = main_pid(cluster, pod)
    await pods.delete(name, grace_seconds=0)
    directory = cluster.directory / "node" / "pods" / pod["metadata"]["uid"]
    await eventually(lambda: not (Path(f"/proc/{pid}").exists() or directory.exists()))


def main_pid(cluster: Cluster, pod: dict[str, dict[str, str]], container: str = "c0") -> int:
    uid = pod["metadata"]["uid"]
    return int((cluster.directory / f"node/pods/{uid}/containers/{container}/pid").read_text())


async def test_a_container_killed_from_outside_ended_by_signal(
    pods: Pods, cluster: Cluster
) -> None:
    name = await pods.create("killed", sh("exec sleep 600"))
    pod = await pods.until_phase(name, "Running")
    os.kill(main_pid(cluster, pod), signal.SIGKILL)
    pod = await pods.until_phase(name, "Failed")
    assert state(pod)["terminated"]["exitCode"] == 137
    assert state(pod)["terminated"]["reason"] == "Error"


async def test_active_deadline(pods: Pods) -> None:
    name = await pods.create("late", sh("exec sleep 600"), activeDeadlineSeconds=1)
    pod = await pods.until_phase(name, "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert state(pod)["terminated"]["exitCode"] == 137


async def test_a_container_over_its_memory_limit_is_killed(pods: Pods) -> None:
    code = "import time; x = b'1' * (200 << 20); time.sleep(600)"
    container = {
        "command": [sys.executable, "-c", code],
        "resources": {"limits": {"memory": "100Mi"}},
    }
    name = await pods.create("big", container)
    pod = await pods.until_phase(name, "Failed")
    ended = state(pod)["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


async def test_readiness_follows_its_probe(pods: Pods) -> None:
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    probe = {"exec": {"command": ["test", "-e", "/v/ready"]}, "periodSeconds": 1}
    probe["failureThreshold"] = 1
    script = "sleep 1; touch /v/ready; sleep 3; rm /v/ready; exec sleep 600"
    container = sh(script, readinessProbe=probe, **mounts)
    name = await pods.create("ready", container, volumes=[{"name": "v", "emptyDir": {}}])
    running = await pods.until_phase(name, "Running")
    assert condition(running, "Ready")["status"] == "False"
    await pods.until(name, lambda pod: condition(pod, "Ready")["status"] == "True")
    await pods.until(name, lambda pod: condition(pod, "Ready")["status"] == "False")
    assert (await pods.until_event(name, "Unhealthy")).startswith("Readiness probe failed")
    await pods.delete(name, grace_seconds=0)


async def test_liveness_restarts_the_container(pods: Pods) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    container = sh("exec sleep 600", livenessProbe=probe)
    name = await pods.create(
        "dead", container, restartPolicy="Always", terminationGracePeriodSeconds=0
    )
    pod = await pods.until(name, lambda pod: restarts(pod) >= 1)
    assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 137
    message = await pods.until_event(name, "Killing")
    assert message == "Container c0 failed liveness probe, will be restarted"
    await pods.delete(name, grace_seconds=0)


async def test_http_probes_reach_the_pods_address(pods: Pods) -> None:
    serve = f"{sys.executable} -m http.server 18080 --bind $POD_IP --directory /tmp"
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    probe = {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 1}
    container = sh(
        f"exec {serve}",
        env=[address],
        ports=[{"name": "web", "containerPort": 18080}],
        readinessProbe=probe,
        startupProbe={"tcpSocket": {"port": 18080}, "periodSeconds": 1, "failureThreshold": 60},
    )
    name = await pods.create("web", container)
    await pods.until(name, lambda pod: condition(pod, "Ready").get("status") == "True")
    await pods.delete(name, grace_seconds=0)

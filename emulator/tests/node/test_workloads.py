"""Deployments, as Helm and kubectl use them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Kubectl:
    def __init__(self, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.run = run

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("get", *arguments, "--output=json"))["items"]
        return found

    def apply(
        self,
        name: str,
        replicas: int,
        strategy: str,
        script: str,
        *,
        grace_seconds: int = 0,
        shared: Path = Path("/tmp"),
        ready: str = "true",
    ) -> None:
        """`shared` is a host directory that the pods see at /shared; `ready` a shell's question."""
        container = {
            "name": "c",
            "image": "alpine",
            "command": ["/bin/sh", "-c", script],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            "readinessProbe": {"exec": {"command": ["/bin/sh", "-c", ready]}, "periodSeconds": 1},
        }
        labels = {"app": name}
        volumes = [{"name": "shared", "hostPath": {"path": str(shared)}}]
        pod = {"containers": [container], "volumes": volumes}
        pod["terminationGracePeriodSeconds"] = grace_seconds
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "strategy": {"type": strategy},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
        self("apply", "--filename=-", stdin=json.dumps(manifest))

    def roll_out(self, name: str) -> None:
        self("rollout", "status", f"deployment/{name}", "--timeout=180s")


@pytest.fixture
def kubectl(kubectl: Callable[..., Any]) -> Kubectl:
    return Kubectl(kubectl)


@pytest.mark.parametrize("strategy", ["Recreate", "RollingUpdate"])
def test_roll_out_change_scale_and_delete(kubectl: Kubectl, strategy: str) -> None:
    name = f"web-{strategy.lower()}"
    select = f"--selector=app={name}"
    kubectl.apply(name, 2, strategy, "exec sleep 600")
    kubectl.roll_out(name)
    first = {pod["metadata"]["uid"] for pod in kubectl.items("pods", select)}
    assert len(first) == 2

    kubectl.apply(name, 2, strategy, "exec sleep 601")
    kubectl.roll_out(name)
    kubectl("wait", "--for=delete", *(f"pod/{one}" for one in _names(kubectl, select, first)))
    second = {pod["metadata"]["uid"] for pod in kubectl.items("pods", select)}
    assert len(second) == 2
    assert not first & second
    sets = kubectl.items("replicasets", select)
    revisions = {
        one["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: one["spec"]["replicas"]
        for one in sets
    }
    assert revisions == {"1": 0, "2": 2}

    kubectl("patch", f"deployment/{name}", "--patch", '{"spec": {"replicas": 1}}')
    kubectl("wait", "--for=jsonpath={.status.replicas}=1", f"deployment/{name}", "--timeout=180s")
    [left] = [pod for pod in kubectl.items("pods", select) if not deleting(pod)]
    assert left["metadata"]["uid"] in second

    kubectl("delete", f"deployment/{name}", "--cascade=foreground", "--timeout=180s")
    assert kubectl.items("pods,replicasets", select) == []


def _names(kubectl: Kubectl, select: str, uids: set[str]) -> list[str]:
    names = [
        pod["metadata"]["name"]
        for pod in kubectl.items("pods", select)
        if pod["metadata"]["uid"] in uids
    ]
    return names or ["none-is-left"]


def deleting(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def test_recreate_never_runs_two_versions(kubectl: Kubectl, tmp_path: Path) -> None:
    """Each version refuses to run while the other holds the lock."""
    # The trap comes before the lock, and is there once it is held: a signal without a trap would
    # leave the lock behind for ever.
    lock = "trap 'rmdir /shared/held; exit 0' TERM; mkdir /shared/held || exit 9"
    script, held = f"{lock}; while :; do sleep 0.05; done", "test -d /shared/held"
    kubectl.apply("one", 1, "Recreate", script, grace_seconds=9, shared=tmp_path, ready=held)
    kubectl.roll_out("one")
    kubectl("patch", "deployment/one", "--patch", json.dumps(_grace(10)))
    kubectl.roll_out("one")
    kubectl("patch", "deployment/one", "--patch", json.dumps(_grace(11)))
    kubectl.roll_out("one")
    pods = [pod for pod in kubectl.items("pods", "--selector=app=one") if not deleting(pod)]
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods] == [0]
    kubectl("delete", "deployment/one", "--cascade=foreground", "--timeout=180s")


def _grace(seconds: int) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": seconds}}}}


def test_a_pod_that_dies_is_replaced(kubectl: Kubectl) -> None:
    kubectl.apply("again", 1, "RollingUpdate", "exec sleep 600")
    kubectl.roll_out("again")
    [pod] = kubectl.items("pods", "--selector=app=again")
    kubectl("delete", f"pod/{pod['metadata']['name']}")
    kubectl.roll_out("again")
    others = kubectl.items("pods", "--selector=app=again")
    assert pod["metadata"]["uid"] not in {one["metadata"]["uid"] for one in others}
    kubectl("delete", "deployment/again", "--cascade=foreground", "--timeout=180s")


def test_a_deployment_that_cannot_become_ready_says_so(kubectl: Kubectl) -> None:
    kubectl.apply("broken", 1, "RollingUpdate", "exit 1")
    kubectl(
        "wait",
        "--for=jsonpath={.status.unavailableReplicas}=1",
        "deployment/broken",
        "--timeout=180s",
    )
    [broken] = kubectl.items("deployments", "--field-selector=metadata.name=broken")
    conditions = {one["type"]: one["status"] for one in broken["status"]["conditions"]}
    assert conditions["Available"] == "False"
    kubectl("delete", "deployment/broken", "--cascade=foreground", "--timeout=180s")

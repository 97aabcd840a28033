"""Why a pod does not fit, in the scheduler's words."""

import pytest

from kube_emulator.client import Object
from kube_emulator.node.scheduling import obstacle

NODE = {
    "metadata": {"labels": {"kubernetes.io/os": "linux", "zone": "a"}},
    "spec": {},
    "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"}},
}


def pod(requests: dict[str, str] | None = None, **spec: object) -> Object:
    return {"spec": {"containers": [{"resources": {"requests": requests or {}}}], **spec}}


def test_a_pod_that_fits_has_no_obstacle() -> None:
    assert obstacle(pod({"cpu": "2"}), NODE, []) is None


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ({"nvidia.com/gpu": "1"}, "1 Insufficient nvidia.com/gpu"),
        ({"cpu": "2001m"}, "1 Insufficient cpu"),
        ({"cpu": "3", "memory": "5Gi"}, "1 Insufficient cpu, 1 Insufficient memory"),
    ],
)
def test_missing_resources_are_named(requests: dict[str, str], reason: str) -> None:
    assert obstacle(pod(requests), NODE, []) == f"0/1 nodes are available: {reason}."


def test_what_other_pods_hold_is_gone() -> None:
    placed = [pod({"cpu": "1500m"})]
    assert obstacle(pod({"cpu": "500m"}), NODE, placed) is None
    assert obstacle(pod({"cpu": "501m"}), NODE, placed) is not None


def test_pods_are_counted() -> None:
    assert obstacle(pod(), NODE, [pod(), pod()]) is None
    text = "0/1 nodes are available: 1 Too many pods."
    assert obstacle(pod(), NODE, [pod(), pod(), pod()]) == text


def test_node_selector() -> None:
    assert obstacle(pod(nodeSelector={"zone": "a"}), NODE, []) is None
    trouble = obstacle(pod(nodeSelector={"zone": "b"}), NODE, [])
    assert trouble == (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    )


def test_unschedulable() -> None:
    node = NODE | {"spec": {"unschedulable": True}}
    assert obstacle(pod(), node, []) == "0/1 nodes are available: 1 node(s) were unschedulable."


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (None, False),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_taints(toleration: dict[str, str] | None, fits: bool) -> None:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    node = NODE | {"spec": {"taints": [taint]}}
    tolerations = [toleration] if toleration else []
    trouble = obstacle(pod(tolerations=tolerations), node, [])
    words = "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}."
    assert trouble == (None if fits else words)


def test_a_soft_taint_does_not_matter() -> None:
    taint = {"key": "gpu", "effect": "PreferNoSchedule"}
    assert obstacle(pod(), NODE | {"spec": {"taints": [taint]}}, []) is None

"""What a pod asks of its node, and what its containers are told of it."""

from decimal import Decimal

import pytest

from kube_emulator.node.containers.resources import (
    container_resource,
    machine_capacity,
    memory_limit,
    pod_requests,
    thread_limit,
)
from kube_emulator.quantity import parse


@pytest.mark.parametrize(
    ("limit", "threads"), [("1", "1"), (4, "4"), ("2500m", "2"), ("100m", "1"), (None, None)]
)
def test_a_cpu_limit_bounds_the_threads(limit: str | int | None, threads: str | None) -> None:
    limits = {"memory": "1Gi"} if limit is None else {"cpu": limit}
    variables = {"OMP_NUM_THREADS": threads} if threads else {}
    assert thread_limit({"resources": {"limits": limits, "requests": {"cpu": 3}}}) == variables
    assert thread_limit({}) == {}


def test_a_pod_asks_for_its_largest_moment() -> None:
    """Sidecars run beside everything after them; init containers run one at a time."""

    def asking(cpu: str, **more: str) -> dict[str, object]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [
            asking("3"),
            asking("1", restartPolicy="Always"),
            asking("4"),
        ],
        "containers": [asking("1"), asking("2")],
    }
    assert pod_requests(spec) == {"cpu": Decimal(5)}
    spec["containers"].append(asking("2"))
    assert pod_requests(spec) == {"cpu": Decimal(6)}


def test_a_limit_stands_for_a_request_that_is_not_written() -> None:
    resources = {"limits": {"nvidia.com/gpu": "2", "cpu": "4"}, "requests": {"cpu": "1"}}
    assert pod_requests({"containers": [{"resources": resources}]}) == {
        "nvidia.com/gpu": Decimal(2),
        "cpu": Decimal(1),
    }


def test_an_init_container_may_be_the_largest_in_one_resource() -> None:
    spec = {
        "initContainers": [{"resources": {"requests": {"memory": "4Gi"}}}],
        "containers": [{"resources": {"requests": {"cpu": "1"}}}],
    }
    assert pod_requests(spec) == {"cpu": Decimal(1), "memory": parse("4Gi")}


def test_a_containers_resource_in_units_of_its_divisor() -> None:
    container = {"resources": {"limits": {"memory": "1Gi", "cpu": "2"}, "requests": {"cpu": "1"}}}
    assert container_resource(container, "requests", "cpu", "1m") == 1000
    assert container_resource(container, "limits", "cpu", "1") == 2
    assert container_resource(container, "requests", "memory", "1Mi") == 1024
    assert container_resource({}, "limits", "cpu", "1") == machine_capacity()["cpu"]
    assert container_resource({}, "limits", "nvidia.com/gpu", "1") == 0


def test_memory_limit() -> None:
    assert memory_limit({"resources": {"limits": {"memory": "20Mi"}}}) == 20 * 2**20
    assert memory_limit({"resources": {"requests": {"memory": "20Mi"}}}) is None

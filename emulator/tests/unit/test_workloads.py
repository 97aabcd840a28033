"""What a Deployment's status says about its ReplicaSets."""

from typing import Any

import pytest

from kube_emulator.client import Object
from kube_emulator.workloads import deployment_status, template_hash


def deployment(replicas: int = 2) -> Object:
    template = {"spec": {"containers": [{"name": "c", "image": "a"}]}}
    return {
        "metadata": {"generation": 3},
        "spec": {"replicas": replicas, "template": template},
    }


def replica_set(replicas: int, available: int) -> Object:
    return {"status": {"replicas": replicas, "availableReplicas": available}}


def conditions(status: Object) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


@pytest.mark.parametrize(
    ("current", "old", "available", "progress"),
    [
        (None, [], "False", "ReplicaSetUpdated"),
        (replica_set(2, 1), [], "False", "ReplicaSetUpdated"),
        (replica_set(2, 2), [], "True", "NewReplicaSetAvailable"),
        (replica_set(2, 1), [replica_set(1, 1)], "True", "ReplicaSetUpdated"),
        (replica_set(2, 2), [replica_set(1, 1)], "True", "ReplicaSetUpdated"),
    ],
)
def test_conditions(
    current: Object | None, old: list[Object], available: str, progress: str
) -> None:
    owned = [*old, *([current] if current else [])]
    found = conditions(deployment_status(deployment(), current, owned))
    assert found["Available"][0] == available
    assert found["Progressing"] == ("True", progress)


def test_counts() -> None:
    current, old = replica_set(2, 1), replica_set(1, 0)
    status = deployment_status(deployment(), current, [current, old])
    del status["conditions"]
    assert status == {
        "replicas": 3,
        "updatedReplicas": 2,
        "readyReplicas": 1,
        "availableReplicas": 1,
        "unavailableReplicas": 1,
        "observedGeneration": 3,
    }


def test_a_condition_that_has_not_changed_is_kept() -> None:
    one = deployment()
    first = deployment_status(one, replica_set(2, 2), [replica_set(2, 2)])
    for condition in first["conditions"]:
        condition["lastTransitionTime"] = condition["lastUpdateTime"] = "2026-01-01T00:00:00Z"
    again = deployment_status(one | {"status": first}, replica_set(2, 2), [replica_set(2, 2)])
    assert again == first
    worse = deployment_status(one | {"status": first}, replica_set(2, 1), [replica_set(2, 1)])
    assert worse["conditions"][0]["lastTransitionTime"] != "2026-01-01T00:00:00Z"


def test_the_hash_names_the_template_and_nothing_else() -> None:
    changed: Any = deployment()
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "b"
    assert template_hash(deployment(1)) == template_hash(deployment(5))
    assert template_hash(changed) != template_hash(deployment())

"""A pod that filled its disk is no victim of its node: it would fill the next one as well."""

from typing import Any

import pytest

from finetune_contract.reasons import TABLE, Reason, Retry
from finetune_operator.judge.diagnose import end_of
from finetune_operator.plan.backends import BACKEND
from support.operator.values import at, attempt, ended, job, pod, seen

# The kubelet's words (pkg/kubelet/eviction/helpers.go).
OVER_ITS_LIMIT = [
    "Pod ephemeral local storage usage exceeds the total limit of containers 20Gi. ",
    'Container pytorch exceeded its local ephemeral storage limit "20Gi". ',
    'Usage of EmptyDir volume "scratch" exceeds the limit "20Gi". ',
]
NODE_PRESSURE = [
    "The node was low on resource: ephemeral-storage. Threshold quantity: 5Gi, available: 4Gi. "
    "Container pytorch was using 18Gi, which exceeds its request of 0. ",
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. ",
    "The node had condition: [DiskPressure]. ",
]


def evicted(message: str) -> Any:
    """A pod as a kubelet leaves it that gives it a condition as well."""
    return pod(phase="Failed", running=False, reason="Evicted", message=message, disrupted=message)


def reason_of(made: Any) -> Reason:
    found = end_of(job(), attempt(), seen(made, pod(1)), at(60), BACKEND.workload)
    assert found is not None
    return found.reason


@pytest.mark.parametrize("message", OVER_ITS_LIMIT)
def test_a_pod_over_its_own_limit_has_filled_its_disk(message: str) -> None:
    assert reason_of(evicted(message)) is Reason.DISK_FULL
    unconditioned = pod(phase="Failed", running=False, reason="Evicted", message=message)
    assert reason_of(unconditioned) is Reason.DISK_FULL
    killed = ended(0, 137, reason="Error", message=message, disrupted=message)
    assert reason_of(killed) is Reason.DISK_FULL
    assert TABLE[Reason.DISK_FULL].retry is Retry.COUNTED


@pytest.mark.parametrize("message", OVER_ITS_LIMIT)
def test_the_kubelets_words_are_passed_on(message: str) -> None:
    found = end_of(job(), attempt(), seen(evicted(message)), at(60), BACKEND.workload)
    assert found is not None
    assert found.message == f"bot-a1-master-0: {message.strip()}"


@pytest.mark.parametrize("message", NODE_PRESSURE)
def test_pressure_on_the_node_stays_an_eviction(message: str) -> None:
    assert reason_of(evicted(message)) is Reason.EVICTED

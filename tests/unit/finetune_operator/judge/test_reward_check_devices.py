"""The trial of rewards where workers ask for devices, which the trial does not."""

from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.status import RewardCheckState
from finetune_contract.reasons import Reason
from finetune_operator.job.workers import extended_resources
from finetune_operator.judge.decision import Course
from finetune_operator.plan.pod import pod_template
from support.operator.reward_trials import (
    PYTHON,
    decided,
    ended,
    failure,
    grpo,
    pod,
    record,
    seen,
    told,
    tried_by,
)

OWN = {"key": "team", "operator": "Exists"}
LACKS = failure(Reason.SANDBOX_UNAVAILABLE, "reward mine: the kernel lacks Landlock")
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def asking_for(limits: dict[str, Any], *rewards: dict[str, Any], **workers: Any) -> FineTuneJob:
    return grpo(*rewards, workers={"resources": {"limits": limits}, **workers})


def tolerations(of: FineTuneJob) -> Any:
    return tried_by(of)["spec"].get("tolerations")


@pytest.mark.parametrize(
    ("limits", "devices"),
    [
        ({"nvidia.com/gpu": 8, "cpu": 8, "memory": "64Gi"}, ["nvidia.com/gpu"]),
        (
            {"amd.com/gpu": 8, "rdma/hca_shared": 1, "ephemeral-storage": "1Gi"},
            ["amd.com/gpu", "rdma/hca_shared"],
        ),
        ({"cpu": 8, "hugepages-2Mi": "1Gi", "kubernetes.io/batteries": 1}, []),
    ],
)
def test_resources_with_a_domain_of_their_own_are_devices(
    limits: dict[str, Any], devices: list[str]
) -> None:
    assert extended_resources(asking_for(limits)) == devices
    assert extended_resources(grpo()) == []
    assert extended_resources(grpo(workers={"resources": {"requests": {"cpu": 1}}})) == []


def test_taints_of_the_nodes_with_devices_are_tolerated_as_the_attempts_tolerate_them() -> None:
    """Admission adds this to pods that ask for the device; the trial's asks for none."""
    gpus = {"nvidia.com/gpu": 1}
    assert tolerations(asking_for(gpus)) == [GPU_TOLERATION]
    assert tolerations(asking_for({"cpu": 1})) is None
    (own, gpu) = tolerations(asking_for(gpus, tolerations=[OWN]))
    assert own["key"] == "team"
    assert gpu == GPU_TOLERATION
    attempt = pod_template(asking_for(gpus), 1, "trainer:1", "trainer")
    assert "tolerations" not in attempt["spec"], "admission adds it"


def test_another_nodes_kernel_is_no_verdict_on_the_attempts() -> None:
    judge = {"name": "judge", "http": {"url": "http://judge"}}
    of = asking_for({"nvidia.com/gpu": 1}, PYTHON, judge)
    decision = decided(of, seen(ended(of, LACKS, code=34)), record(of))
    assert decision.run is not None
    check = decision.reward_check
    assert check is not None
    assert (check.state, check.failures) == (RewardCheckState.PASSED, 0)
    assert check.message == (
        "not tried: the node of the trial can not confine the rewards "
        "(bot-rewards: reward mine: the kernel lacks Landlock); "
        "the attempt's own runner decides; not tried, as services or models: judge"
    )
    assert decided(of, seen(), check).run is not None, "and it is not tried again"


def test_it_is_one_where_the_attempts_ask_for_no_device() -> None:
    of = asking_for({"cpu": 8})
    decision = decided(of, seen(ended(of, LACKS, code=34)), record(of))
    assert told(decision) == (Course.FAILED, Reason.SANDBOX_UNAVAILABLE)


def test_what_else_the_trial_finds_is_a_verdict_with_devices_too() -> None:
    of = asking_for({"nvidia.com/gpu": 1})
    broken = ended(of, failure(Reason.REWARD_INVALID), code=30)
    assert told(decided(of, seen(broken), record(of))) == (Course.FAILED, Reason.REWARD_INVALID)
    assert decided(of, seen(pod(of)), record(of)).run is None

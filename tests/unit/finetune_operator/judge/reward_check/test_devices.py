"""The trial of rewards where workers ask for devices, which the trial does not."""

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.status import RewardCheckState
from finetune_contract.reasons import Reason
from finetune_operator.judge.decision import Course
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
)

LACKS = failure(Reason.SANDBOX_UNAVAILABLE, "reward mine: the kernel lacks Landlock")


def asking_for(limits: dict[str, Any], *rewards: dict[str, Any], **workers: Any) -> FineTuneJob:
    return grpo(*rewards, workers={"resources": {"limits": limits}, **workers})


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

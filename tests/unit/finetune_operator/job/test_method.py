"""Which rewards run where, and from which score on one passes its gate."""

import pytest

from finetune_operator.job.method import isolated_rewards, python_rewards, reward_recipe
from support.operator.values import job


def test_services_and_models_are_not_the_runners() -> None:
    source = {"configMap": {"name": "code", "key": "a.py"}}
    rewards = [
        {"name": "service", "http": {"url": "http://judge"}},
        {"name": "mine", "python": source},
        {"name": "answer", "exact": {}},
        {"name": "model", "model": {"uri": "hf://o/judge"}},
    ]
    spec = job(method={"type": "GRPO", "grpo": {"rewards": rewards}}).spec
    assert [reward.name for reward in isolated_rewards(spec)] == ["mine", "answer"]
    assert list(python_rewards(spec)) == ["mine"]
    assert isolated_rewards(job().spec) == ()


@pytest.mark.parametrize(("written", "gate"), [("-0.5", -0.5), ("0", 0.0), ("1e-1", 0.1)])
def test_a_gate_is_a_number_of_either_sign(written: str, gate: float) -> None:
    """Logits and judges' scores may be negative, and so may the least of them that passes."""
    rewards = [{"name": "judge", "gate": written, "http": {"url": "http://judge"}}]
    spec = job(method={"type": "GRPO", "grpo": {"rewards": rewards}}).spec
    assert spec.method.grpo is not None
    assert reward_recipe(spec.method.grpo.rewards[0]).gate == gate

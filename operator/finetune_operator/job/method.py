"""spec.method -> the contract's GRPO: decimals become numbers, amounts of memory become bytes."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from finetune_api import rewards as api
from finetune_api.grpo import Grpo
from finetune_api.spec import FineTuneJobSpec
from finetune_api.types import Quantity
from finetune_contract import grpo as contract
from finetune_contract import rewards as contract_rewards
from finetune_contract.layout import Rollout, RolloutEngine

_FACTORS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}


def grpo_recipe(spec: FineTuneJobSpec) -> contract.GrpoRecipe | None:
    """Return what of method.grpo decides the adapter; None for other methods."""
    grpo = spec.method.grpo
    if grpo is None:
        return None
    return contract.GrpoRecipe(
        group_size=grpo.group_size,
        loss=grpo.loss,
        clip_low=_number(grpo.clip_low),
        clip_high=_number(grpo.clip_high),
        beta=float(grpo.beta),
        scale_rewards=grpo.scale_rewards,
        aggregate=grpo.aggregate,
        iterations=grpo.iterations,
        mask_truncated=grpo.mask_truncated,
        soft_punish_tokens=grpo.soft_punish_tokens,
        max_resamples=grpo.max_resamples,
        nothing_to_learn_steps=grpo.nothing_to_learn_steps,
        sampling=_sampling(grpo),
        rewards=tuple(reward_recipe(reward) for reward in grpo.rewards),
    )


def reward_recipe(reward: api.Reward) -> contract_rewards.Reward:
    """Return one reward; its blocks have the same fields on both sides, those of python aside."""
    blocks = {}
    for block in contract_rewards.SOURCES:
        source = getattr(reward, block)
        if isinstance(source, api.PythonReward):
            blocks[block] = _python(source).model_dump()
        elif source is not None:
            blocks[block] = source.model_dump(exclude={"credentials_secret_ref"})
    return contract_rewards.Reward(
        name=reward.name,
        weight=float(reward.weight),
        gate=_number(reward.gate),
        on_error=reward.on_error,
        fail_after=reward.fail_after,
        **blocks,
    )


def rollout(spec: FineTuneJobSpec) -> Rollout | None:
    """Return where completions are drawn, if that is not the trainer itself."""
    grpo = spec.method.grpo
    if grpo is None or grpo.rollout.engine is RolloutEngine.BUILTIN:
        return None
    return Rollout(
        engine=grpo.rollout.engine,
        uri=grpo.rollout.uri,
        adapter_directory=grpo.rollout.adapter_directory,
    )


def isolated_rewards(spec: FineTuneJobSpec) -> tuple[api.Reward, ...]:
    """Return the rewards that the isolated runner scores."""
    rewards = spec.method.grpo.rewards if spec.method.grpo else []
    return tuple(reward for reward in rewards if reward.http is None and reward.model is None)


def python_rewards(spec: FineTuneJobSpec) -> dict[str, api.PythonReward]:
    """Return the rewards that are code of the user's, by name."""
    return {r.name: r.python for r in isolated_rewards(spec) if r.python is not None}


def amount(quantity: Quantity) -> int:
    """Return a resource.Quantity in its base unit, rounded up."""
    return int(exact(quantity).to_integral_value(ROUND_CEILING))


def exact(quantity: Quantity) -> Decimal:
    """Return a resource.Quantity in its base unit."""
    text = str(quantity)
    suffix = next((s for s in _FACTORS if text.endswith(s)), "")
    return Decimal(text.removesuffix(suffix)) * _FACTORS.get(suffix, Decimal(1))


def _sampling(grpo: Grpo) -> contract.Sampling:
    drawn = grpo.rollout
    return contract.Sampling(
        max_tokens=drawn.max_tokens,
        temperature=float(drawn.temperature),
        top_p=float(drawn.top_p),
        top_k=drawn.top_k,
        stop=tuple(drawn.stop),
    )


def _python(source: api.PythonReward) -> contract_rewards.PythonReward:
    return contract_rewards.PythonReward(
        config_map=source.config_map.name,
        key=source.config_map.key,
        function=source.function,
        timeout_seconds=source.timeout_seconds,
        memory_bytes=amount(source.memory),
        allow_unconfined=source.allow_unconfined,
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)

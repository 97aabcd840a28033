"""FineTuneJob.spec.method.grpo: rollouts, the loss, and rewards."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from finetune_api.rewards import Reward
from finetune_api.types import (
    DECIMAL,
    ApiModel,
    DecimalString,
    SecretRef,
    bound,
    http_address,
    rule,
    rules,
)
from finetune_contract.grpo import Aggregate, GrpoLoss, ScaleRewards
from finetune_contract.layout import RolloutEngine

_BY_NAME: dict[str, Any] = {
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}
_URI = r"^https?://[^\s?#@]+$"


def _of_loss(loss: str, field: str, comparison: str, message: str) -> dict[str, str]:
    """Return a rule that compares a decimal field of `self` with a number under one loss alone."""
    value = f"self.{field}"
    return rule(
        f"!has({value}) || !has(self.loss) || self.loss != '{loss}' || "
        f"!{value}.matches('{DECIMAL}') || double({value}) {comparison}",
        message,
        f".{field}",
    )


_SMALL = "GSPO clips a mean over the completion: {} must be at most 0.1; remove it for {}"


class Rollout(ApiModel):
    """How completions are drawn."""

    engine: RolloutEngine = RolloutEngine.BUILTIN
    """`Builtin` generates on the training devices. `OpenAI` asks a server with the OpenAI API that
    can load adapters while it runs, such as vLLM."""
    uri: (
        Annotated[
            str,
            Field(max_length=1024, pattern=_URI),
            WithJsonSchema({"type": "string", "maxLength": 1024}),
        ]
        | None
    ) = None
    """The server's address up to and without `/v1`: a Service in the job's namespace
    (`http://vllm:8000`), or a host that the operator's chart allows."""
    adapter_directory: Annotated[str, Field(max_length=1024, pattern=r"^/[^:]*$")] | None = None
    """A directory that trainer and server share (see workers.volumes): each step's adapter is
    written there for the server to load."""
    credentials_secret_ref: SecretRef | None = None
    """A Secret whose key `token` is sent to the server as a bearer token; an authority in its key
    `ca.crt` is trusted."""
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    """Longest completion; prompts may have sequenceLength - maxTokens tokens."""
    temperature: DecimalString = "1.0"
    """Sampling temperature."""
    top_p: DecimalString = "1.0"
    """Draw from the smallest set of tokens with this probability (arXiv 1904.09751)."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Draw from this many most likely tokens; 0 from all."""
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=8)
    ] = []  # noqa: RUF012 - copied by pydantic
    """Texts that end a completion, beside the model's end-of-turn tokens."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            bound("temperature", "> 0.0", "temperature must be above 0"),
            bound("topP", "> 0.0", "topP must be above 0"),
            bound("topP", "<= 1.0", "topP must be at most 1"),
            http_address("uri", _URI, "http:// or https:// and host"),
            rule(
                "has(self.engine) && self.engine == 'OpenAI' ? "
                "has(self.uri) && has(self.adapterDirectory) : "
                "!has(self.uri) && !has(self.adapterDirectory) && "
                "!has(self.credentialsSecretRef)",
                "engine OpenAI needs uri and adapterDirectory; engine Builtin has no use for uri, "
                "adapterDirectory and credentialsSecretRef",
                ".engine",
            ),
        )
    )


class Grpo(ApiModel):
    """Group-relative policy optimisation (arXiv 2402.03300): several completions of a prompt are
    scored, and those better than their group's mean become more likely."""

    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Completions of each prompt. training.globalBatchSize counts completions and must be a
    multiple."""
    loss: GrpoLoss = GrpoLoss.DAPO
    """`GRPO` (mean over each completion's tokens, then over completions), `DrGRPO` (2503.20783: a
    constant instead of the length, no scaling), `DAPO` (2503.14476: mean over all tokens of the
    step, clip-higher), `GSPO` (2507.18071: ratio and clip per completion), `CISPO` (2506.13585: the
    ratio is capped and gradients of all tokens stay)."""
    clip_low: DecimalString | None = None
    """The ratio of new to old probability is clipped below at 1 - clipLow. Default 0.2; GSPO 3e-4,
    whose ratio is a mean over a completion. CISPO has none."""
    clip_high: DecimalString | None = None
    """The ratio is clipped above at 1 + clipHigh. Default 0.2; DAPO 0.28, GSPO 4e-4. For CISPO it
    is the cap itself, at least 1; default 5."""
    beta: DecimalString = "0"
    """Weight of the KL divergence from the model that training began with (estimator k3)."""
    scale_rewards: ScaleRewards | None = None
    """Divide advantages by the standard deviation of rewards in the `Group` or the `Batch`, or by
    `None`. Default Group; DrGRPO None. Not with aggregate GDPO, which has a scale of its own."""
    aggregate: Aggregate = Aggregate.WEIGHTED_SUM
    """`WeightedSum` adds the rewards. `GDPO` (arXiv 2601.05242) normalises each within its group
    first, so that one with a small spread still counts."""
    iterations: Annotated[int, Field(ge=1, le=64)] = 1
    """Optimizer steps on the same completions."""
    mask_truncated: bool = False
    """Leave completions that were cut at maxTokens out of the loss."""
    soft_punish_tokens: Annotated[int, Field(ge=0, le=131_072)] = 0
    """Lower the total by up to 1 over this many tokens before maxTokens (arXiv 2503.14476)."""
    max_resamples: Annotated[int, Field(ge=0, le=64)] = 0
    """Dynamic sampling: how many times groups whose completions all score the same are replaced by
    other prompts before a step goes on without them. The cost is logged."""
    nothing_to_learn_steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    """End the job when this many steps in a row had nothing to learn from."""
    rollout: Rollout = Rollout()
    """How completions are drawn."""
    rewards: Annotated[list[Reward], Field(min_length=1, max_length=16, json_schema_extra=_BY_NAME)]
    """What scores the completions."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            bound("clipLow", "< 1.0", "clipLow must be below 1"),
            rule(
                "!has(self.clipLow) || !has(self.loss) || self.loss != 'CISPO'",
                "CISPO has no lower clip; remove clipLow",
                ".clipLow",
            ),
            _of_loss(
                "CISPO",
                "clipHigh",
                ">= 1.0",
                "with loss CISPO clipHigh is the cap of the ratio itself: at least 1",
            ),
            _of_loss("GSPO", "clipLow", "<= 0.1", _SMALL.format("clipLow", "3e-4")),
            _of_loss("GSPO", "clipHigh", "<= 0.1", _SMALL.format("clipHigh", "4e-4")),
            rule(
                "!has(self.scaleRewards) || !has(self.aggregate) || self.aggregate != 'GDPO'",
                "GDPO divides by deviations of its own; remove scaleRewards",
                ".scaleRewards",
            ),
            rule(
                f"self.rewards.exists(r, !has(r.weight) || !r.weight.matches('{DECIMAL}') || "
                "double(r.weight) > 0.0)",
                "at least one reward needs a weight above 0",
                ".rewards",
            ),
            rule(
                "!has(self.softPunishTokens) || self.softPunishTokens <= self.rollout.maxTokens",
                "softPunishTokens must not be above rollout.maxTokens",
                ".softPunishTokens",
            ),
        )
    )

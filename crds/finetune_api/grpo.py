"""FineTuneJob.spec.method.grpo: rollouts, the loss, and rewards."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_api.rewards import Reward
from finetune_api.types import (
    DECIMAL,
    Rule,
    SecretRef,
    after,
    bound,
    http_address,
    keyed_by,
)
from finetune_contract import layout
from finetune_contract.grpo import GrpoTerms, Sampling


def _of_loss(loss: str, field: str, comparison: str, message: str) -> Rule:
    """Return a rule that compares a decimal field of `self` with a number under one loss alone."""
    return bound(field, comparison, message, f"!has(self.loss) || self.loss != '{loss}' || ")


_SMALL = "GSPO clips a mean over the completion: {} must be at most 0.1; remove it for {}"


@bound("temperature", "> 0.0", "temperature must be above 0")
@bound("topP", "> 0.0", "topP must be above 0")
@bound("topP", "<= 1.0", "topP must be at most 1")
@http_address("uri", "http:// or https:// and host")
@Rule(
    "has(self.engine) && self.engine == 'OpenAI' ? "
    "has(self.uri) && has(self.adapterDirectory) : "
    "!has(self.uri) && !has(self.adapterDirectory) && "
    "!has(self.credentialsSecretRef)",
    "engine OpenAI needs uri and adapterDirectory; engine Builtin has no use for uri, "
    "adapterDirectory and credentialsSecretRef",
    ".engine",
)
class Rollout(Sampling, layout.Rollout):
    """How completions are drawn."""

    credentials_secret_ref: Annotated[
        SecretRef | None, Field(json_schema_extra=after("adapterDirectory"))
    ] = None
    """A Secret whose key `token` is sent to the server as a bearer token; an authority in its key
    `ca.crt` is trusted."""


@bound("clipLow", "< 1.0", "clipLow must be below 1")
@Rule(
    "!has(self.clipLow) || !has(self.loss) || self.loss != 'CISPO'",
    "CISPO has no lower clip; remove clipLow",
    ".clipLow",
)
@_of_loss(
    "CISPO",
    "clipHigh",
    ">= 1.0",
    "with loss CISPO clipHigh is the cap of the ratio itself: at least 1",
)
@_of_loss("GSPO", "clipLow", "<= 0.1", _SMALL.format("clipLow", "3e-4"))
@_of_loss("GSPO", "clipHigh", "<= 0.1", _SMALL.format("clipHigh", "4e-4"))
@Rule(
    "!has(self.scaleRewards) || !has(self.aggregate) || self.aggregate != 'GDPO'",
    "GDPO divides by deviations of its own; remove scaleRewards",
    ".scaleRewards",
)
@Rule(
    f"self.rewards.exists(r, !has(r.weight) || !r.weight.matches('{DECIMAL}') || "
    "double(r.weight) > 0.0)",
    "at least one reward needs a weight above 0",
    ".rewards",
)
@Rule(
    "!has(self.softPunishTokens) || self.softPunishTokens <= self.rollout.maxTokens",
    "softPunishTokens must not be above rollout.maxTokens",
    ".softPunishTokens",
)
class Grpo(GrpoTerms):
    """Group-relative policy optimisation, with where completions come from and what scores them."""

    rollout: Rollout = Rollout()
    """How completions are drawn."""
    rewards: Annotated[
        tuple[Reward, ...], Field(min_length=1, max_length=16, json_schema_extra=keyed_by("name"))
    ]
    """What scores the completions."""

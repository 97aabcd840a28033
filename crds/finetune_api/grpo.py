"""FineTuneJob.spec.method.grpo: rollouts, the loss, and rewards."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from finetune_api.rewards import Reward
from finetune_api.types import DECIMAL, SecretRef, after, bound, http_address, rule, rules
from finetune_contract import layout
from finetune_contract.grpo import GrpoTerms, Sampling

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


class Rollout(Sampling, layout.Rollout):
    """How completions are drawn."""

    credentials_secret_ref: Annotated[
        SecretRef | None, Field(json_schema_extra=after("adapterDirectory"))
    ] = None
    """A Secret whose key `token` is sent to the server as a bearer token; an authority in its key
    `ca.crt` is trusted."""

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


class Grpo(GrpoTerms):
    """Group-relative policy optimisation, with where completions come from and what scores them."""

    rollout: Rollout = Rollout()
    """How completions are drawn."""
    rewards: Annotated[
        tuple[Reward, ...], Field(min_length=1, max_length=16, json_schema_extra=_BY_NAME)
    ]
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

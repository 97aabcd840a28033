"""FineTuneJob.spec.method.grpo.rewards: what scores completions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.alias_generators import to_camel

from finetune_api.quantity import Quantity
from finetune_api.types import (
    ConfigMapKey,
    Rule,
    SecretRef,
    after,
    bound,
    http_address,
    store_address,
)
from finetune_contract import rewards as contract
from finetune_contract.model import URI, Message


@Rule("!has(self.least) || self.least <= self.most", "least must not be above most", ".least")
@Rule(
    "!has(self.of) || self.of == 'Whole' || !has(self.unit) || self.unit != 'Tokens'",
    "tokens are counted of the whole completion: remove of, or count Words or Characters",
    ".of",
)
class LengthReward(contract.LengthReward):
    """1 where the completion's length lies in a band."""


@Rule(
    "!has(self.memory) || (type(self.memory) == int ? self.memory > 0 : "
    "!self.memory.matches('^[0.]+([a-zA-Z].*)?$'))",
    "memory must be above 0",
    ".memory",
)
class PythonReward(Message):
    """A Python function of your own. It takes prompts, completions and every column of the rows as
    lists, and returns one number (or None, to abstain) per completion; TRL's reward functions work
    unchanged. It runs beside the trainer without network, credentials or a writable disk."""

    config_map: ConfigMapKey
    """Where the source text is."""
    function: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z_]\w{0,62}$")] = "score"
    """Name of the function, sync or async."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    """Time for one batch; after it the function is killed, and each completion has an error."""
    memory: Quantity = "1Gi"
    """Most memory of the process that runs the function."""
    allow_unconfined: bool = False
    """Run also where the node's kernel can not confine the process: only for code that you
    trust."""


@http_address("url", "http:// or https://, host and path")
class HttpReward(contract.HttpReward):
    """A service that scores batches over HTTP; docs/rewards.md has its OpenAPI schema."""

    credentials_secret_ref: Annotated[SecretRef | None, Field(json_schema_extra=after("url"))] = (
        None
    )
    """A Secret whose key `token` is sent as a bearer token."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """Time for one request."""
    pause_seconds: Annotated[int, Field(ge=1, le=32_400)] = 1800
    """While the service is down the run pauses; after this long it ends, to go on later from its
    checkpoint."""


@store_address("uri", URI)
class ModelReward(contract.ModelReward):
    """The logit of a sequence-classification model with one label."""


_BLOCKS = tuple(map(to_camel, contract.SOURCES))
_ONE = " + ".join(f"(has(self.{block}) ? 1 : 0)" for block in _BLOCKS)


@Rule(f"{_ONE} == 1", "set exactly one of " + ", ".join(_BLOCKS))
@bound("weight", "<= 1000.0", "weight must be at most 1000")
class Reward(contract.BuiltinReward):
    """One reward. Its source is exactly one of the blocks below."""

    length: LengthReward | None = None
    """Check the length."""
    python: PythonReward | None = None
    """Call a function of your own."""
    http: HttpReward | None = None
    """Call a service."""
    model: ModelReward | None = None
    """Ask a reward model."""

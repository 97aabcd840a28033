"""FineTuneJob.spec.method.grpo.rewards: what scores completions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from finetune_api.types import (
    ApiModel,
    DecimalString,
    Name,
    Quantity,
    SecretRef,
    SignedDecimal,
    bound,
    http_address,
    rule,
    rules,
)
from finetune_contract.rewards import SOURCES, OnError

Column = Annotated[str, Field(min_length=1, max_length=253)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]
_Phrase = Annotated[str, Field(min_length=1, max_length=256)]
_URL = r"^https?://[^\s?#@/]+(/[^\s?#]*)?$"
_Tag = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z_][\w.-]{0,62}$")]


class MathReward(ApiModel):
    """1 where the completion's final answer equals the column's as mathematics (`1/2` is `0.5`).
    That is what the last `<answer>` tags hold, else the last `\\boxed{}`, else what comes last."""

    answer: Column = "answer"
    """Column of the row that holds the right answer."""


class ExactReward(ApiModel):
    """1 where the completion is the column's text, white space at both ends aside; else 0."""

    answer: Column = "answer"
    """Column of the row that holds the right answer."""
    pattern: Pattern | None = None
    """Compare what this regular expression's first group finds last in the completion, instead of
    the whole completion."""
    ignore_case: bool = False
    """Do not tell upper from lower case."""


class RegexReward(ApiModel):
    """1 where a regular expression is found in the completion, else 0."""

    pattern: Pattern
    """The regular expression (Python's syntax)."""


class ChoiceReward(ApiModel):
    """1 where the letter that the completion settles on is the column's, else 0. That is the last
    one called the answer, else the last in brackets, before `)`, `.` or `:`, or ending a line."""

    answer: Column = "answer"
    """Column of the row that holds the right letter."""
    choices: Annotated[str, Field(min_length=2, max_length=26, pattern=r"^[A-Z]+$")] = "ABCD"
    """The letters to choose from."""


class TagsReward(ApiModel):
    """The share of tags that stand in the completion exactly once, closed and in this order."""

    tags: Annotated[list[_Tag], Field(min_length=1, max_length=16)]
    """The tags, such as [think, answer]."""


class JsonSchemaReward(ApiModel):
    """1 where the completion is JSON (a code fence around it is allowed) that obeys a schema."""

    definition: Annotated[str, Field(min_length=2, max_length=16384)] = "{}"
    """The schema (draft 2020-12), as JSON text; `{}` accepts all JSON."""


class LengthReward(ApiModel):
    """1 where the completion's length lies in a band."""

    unit: Literal["Characters", "Words", "Tokens"] = "Words"
    """What is counted."""
    least: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """The shortest length that scores 1."""
    most: Annotated[int, Field(ge=1, le=10_000_000)]
    """The longest length that scores 1."""
    tolerance: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Beyond the band the score falls to 0 over this length."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.least) || self.least <= self.most",
                "least must not be above most",
                ".least",
            )
        )
    )


class LanguageReward(ApiModel):
    """The probability that the completion is written in a language."""

    language: Annotated[str, Field(max_length=2, pattern=r"^[a-z]{2}$")]
    """The language by its two letters (ISO 639-1), such as `en`."""


class RepetitionReward(ApiModel):
    """The share of the completion's word n-grams that are distinct; 1 without repetition."""

    ngram: Annotated[int, Field(ge=1, le=64)] = 4
    """Words in a row."""


class BannedReward(ApiModel):
    """1 where none of the phrases stands in the completion as whole words, else 0."""

    phrases: Annotated[list[_Phrase], Field(min_length=1, max_length=256)]
    """What must not be said."""
    ignore_case: bool = True
    """Do not tell upper from lower case."""


class ReasoningGymReward(ApiModel):
    """The score that a reasoning-gym task gives to the answer."""

    task: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9_]{1,64}$")]
    """Name of the task, such as `chain_sum`."""
    entry: Column = "entry"
    """Column of the row that holds the task's entry, as an object or as JSON text."""
    pattern: Pattern | None = None
    """The answer is what this regular expression's first group finds last in the completion;
    without it, the whole completion."""


class ConfigMapKey(ApiModel):
    """One file of a ConfigMap in the job's namespace."""

    name: Name
    """Name of the ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """Its key, whose value is the source text."""


class PythonReward(ApiModel):
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

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.memory) || (type(self.memory) == int ? self.memory > 0 : "
                "!self.memory.matches('^[0.]+([a-zA-Z].*)?$'))",
                "memory must be above 0",
                ".memory",
            )
        )
    )


class HttpReward(ApiModel):
    """A service that scores batches over HTTP; docs/rewards.md has its OpenAPI schema."""

    url: Annotated[
        str,
        Field(max_length=1024, pattern=_URL),
        WithJsonSchema({"type": "string", "maxLength": 1024}),
    ]
    """A Service in the job's namespace (`http://judge/score`), or a host that the operator's chart
    allows."""
    credentials_secret_ref: SecretRef | None = None
    """A Secret whose key `token` is sent as a bearer token."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """Time for one request."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """How often a request that got no answer, 401, 403, 408, 429 or 5xx is sent again, with the
    same key."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Completions in one request."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    """Requests under way at once, of all workers together."""
    pause_seconds: Annotated[int, Field(ge=1, le=32_400)] = 1800
    """While the service is down the run pauses; after this long it ends, to go on later from its
    checkpoint."""

    model_config = ConfigDict(
        json_schema_extra=rules(http_address("url", _URL, "http:// or https://, host and path"))
    )


class ModelReward(ApiModel):
    """The logit of a sequence-classification model with one label."""

    uri: Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file)://[^\s?#]+$")]
    """Where the model is; read with the credentials of spec.model."""
    revision: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w./-]+$")] | None = (
        None
    )
    """Commit, tag or branch for hf."""


_BLOCKS = tuple(map(to_camel, SOURCES))
_ONE = " + ".join(f"(has(self.{block}) ? 1 : 0)" for block in _BLOCKS)


class Reward(ApiModel):
    """One reward. Its source is exactly one of the blocks below."""

    name: Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Its name in metrics and status."""
    weight: DecimalString = "1"
    """Its weight in the total. A completion that some rewards did not score has its total from the
    others, their weights scaled up."""
    gate: SignedDecimal | None = None
    """A completion that this reward scores below the gate has the total 0, or the least of its
    group that passes where that is lower, whatever the others say; one that it does not score is
    left out of the training."""
    on_error: OnError = OnError.MASK
    """`Mask`: completions on which the reward fails go without it. `FailAfter`: as Mask, but
    failAfter failures in a row end the job."""
    fail_after: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Failures in a row in one process (one per GPU), without a score between them, that end the
    job under FailAfter."""
    math: MathReward | None = None
    """Compare mathematical answers."""
    exact: ExactReward | None = None
    """Compare text."""
    regex: RegexReward | None = None
    """Look for a pattern."""
    choice: ChoiceReward | None = None
    """Multiple choice."""
    tags: TagsReward | None = None
    """Look for tags."""
    json_schema: JsonSchemaReward | None = None
    """Check JSON."""
    length: LengthReward | None = None
    """Check the length."""
    language: LanguageReward | None = None
    """Check the language."""
    repetition: RepetitionReward | None = None
    """Punish repetition."""
    banned: BannedReward | None = None
    """Forbid phrases."""
    reasoning_gym: ReasoningGymReward | None = None
    """Score a reasoning-gym task."""
    python: PythonReward | None = None
    """Call a function of your own."""
    http: HttpReward | None = None
    """Call a service."""
    model: ModelReward | None = None
    """Ask a reward model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(f"{_ONE} == 1", "set exactly one of " + ", ".join(_BLOCKS)),
            bound("weight", "<= 1000.0", "weight must be at most 1000"),
        )
    )

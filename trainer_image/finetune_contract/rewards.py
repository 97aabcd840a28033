"""Reward functions of a recipe: what scores a completion, and how much it counts.

A score is a finite number. A reward may abstain from a completion, and it may fail on it; neither
is ever taken for a score.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from finetune_contract.model import Message

Column = Annotated[str, Field(min_length=1, max_length=253)]
Share = Annotated[float, Field(ge=0, le=1)]


class OnError(StrEnum):
    """What follows when a reward fails on completions."""

    MASK = "Mask"  # they go without this reward, however often it happens
    FAIL_AFTER = "FailAfter"  # so many failures in a row, no score between them, end the run


class MathReward(Message):
    """1 where the completion's final answer equals the column's, as mathematics; else 0."""

    answer: Column = "answer"


class ExactReward(Message):
    """1 where the completion, or what a pattern's first group finds last in it, is the column's
    text, else 0."""

    answer: Column = "answer"
    pattern: str | None = None
    ignore_case: bool = False


class RegexReward(Message):
    """1 where the pattern is found in the completion, else 0."""

    pattern: Annotated[str, Field(min_length=1)]


class ChoiceReward(Message):
    """1 where the letter the completion settles on is the column's, else 0."""

    answer: Column = "answer"
    choices: Annotated[str, Field(min_length=2)] = "ABCD"


class TagsReward(Message):
    """The share of tags that stand in the completion exactly once, closed and in this order."""

    tags: Annotated[tuple[str, ...], Field(min_length=1)]


class JsonSchemaReward(Message):
    """1 where the completion is JSON that obeys the schema (draft 2020-12), else 0."""

    definition: str = "{}"


class LengthReward(Message):
    """1 where the completion's length is within the band; falls to 0 over `tolerance` beyond it."""

    unit: Literal["Characters", "Words", "Tokens"] = "Words"
    least: Annotated[int, Field(ge=0)] = 0
    most: Annotated[int, Field(ge=1)]
    tolerance: Annotated[int, Field(ge=0)] = 0


class LanguageReward(Message):
    """The probability that the completion is written in a language (ISO 639-1)."""

    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")]


class RepetitionReward(Message):
    """The share of the completion's word n-grams that are distinct: 1 without any repetition."""

    ngram: Annotated[int, Field(ge=1, le=64)] = 4


class BannedReward(Message):
    """1 where none of the phrases stands in the completion as whole words, else 0."""

    phrases: Annotated[tuple[str, ...], Field(min_length=1)]
    ignore_case: bool = True


class ReasoningGymReward(Message):
    """`score_answer` of a reasoning-gym task; the column holds the task's entry as JSON."""

    task: Annotated[str, Field(min_length=1)]
    entry: Column = "entry"
    pattern: str | None = None  # whose first group is the answer


class PythonReward(Message):
    """A function of the user's, run in the isolated runner; the signature is TRL's."""

    config_map: str
    key: str
    function: str = "score"
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    memory_bytes: Annotated[int, Field(gt=0)] = 2**30
    allow_unconfined: bool = False


class HttpReward(Message):
    """A service that scores batches; see docs/rewards.md for its OpenAPI schema."""

    url: str
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    retries: Annotated[int, Field(ge=0)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 1
    concurrency: Annotated[int, Field(ge=1)] = 64
    pause_seconds: Annotated[float, Field(gt=0)] = 1800.0  # an open circuit may hold the run


class ModelReward(Message):
    """The logit of a sequence-classification model with one label."""

    uri: str
    revision: str | None = None


Source = (
    MathReward
    | ExactReward
    | RegexReward
    | ChoiceReward
    | TagsReward
    | JsonSchemaReward
    | LengthReward
    | LanguageReward
    | RepetitionReward
    | BannedReward
    | ReasoningGymReward
    | PythonReward
    | HttpReward
    | ModelReward
)


class Reward(Message):
    """One reward. Exactly one source is set.

    With `gate`, a completion that this reward scores lower gets the total 0, or the least of its
    group that passes where that is lower; one that it does not score at all is left out.
    """

    name: Annotated[str, Field(min_length=1, max_length=40)]
    weight: Annotated[float, Field(ge=0)] = 1.0
    gate: float | None = None
    on_error: OnError = OnError.MASK
    fail_after: Annotated[int, Field(ge=1)] = 100
    math: MathReward | None = None
    exact: ExactReward | None = None
    regex: RegexReward | None = None
    choice: ChoiceReward | None = None
    tags: TagsReward | None = None
    json_schema: JsonSchemaReward | None = None
    length: LengthReward | None = None
    language: LanguageReward | None = None
    repetition: RepetitionReward | None = None
    banned: BannedReward | None = None
    reasoning_gym: ReasoningGymReward | None = None
    python: PythonReward | None = None
    http: HttpReward | None = None
    model: ModelReward | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Reward:
        if sum(getattr(self, name) is not None for name in SOURCES) != 1:
            raise ValueError(f"reward {self.name}: set exactly one of {', '.join(SOURCES)}")
        return self

    @property
    def source(self) -> Source:
        """Return the one source that is set."""
        found: Source = next(
            value for name in SOURCES if (value := getattr(self, name)) is not None
        )
        return found

    @property
    def isolated(self) -> bool:
        """Tell whether it is scored by the isolated runner, not by the trainer itself."""
        return self.http is None and self.model is None


SOURCES = tuple(
    name
    for name in Reward.model_fields
    if name not in {"name", "weight", "gate", "on_error", "fail_after"}
)

"""Reward functions of a recipe: what scores a completion, and how much it counts.

A score is a finite number. A reward may abstain from a completion, and it may fail on it; neither
is ever taken for a score.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_contract.model import HttpUri, Message, Reach, Revision, Uri

# The environment of a pod says which bytes the file with its runner's rewards has to have.
DIGEST_VARIABLE = "FINETUNE_REWARDS_DIGEST"

Column = Annotated[str, Field(min_length=1, max_length=253)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]
_Tag = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z_][\w.-]{0,62}$")]
_Phrase = Annotated[str, Field(min_length=1, max_length=256)]


class OnError(StrEnum):
    """What follows when a reward fails on completions."""

    MASK = "Mask"  # they go without this reward, however often it happens
    FAIL_AFTER = "FailAfter"  # so many failures in a row, no score between them, end the run


class Part(StrEnum):
    """What of a completion a reward reads."""

    ANSWER = "Answer"  # what stands after its thought; an unfinished thought has no answer
    WHOLE = "Whole"


class Reads(Message):
    """A reward that reads a part of completions."""

    of: Part = Part.WHOLE
    """What is read: `Answer`, which is what follows the thought (a thought without an end has none,
    and scores 0), or the `Whole` completion."""


class ReadsAnswer(Reads):
    """A reward that reads the answer, unless it is told to read all."""

    of: Part = Part.ANSWER
    """What is read: `Answer`, which is what follows the thought (a thought without an end has none,
    and scores 0), or the `Whole` completion."""


class MathReward(ReadsAnswer):
    """1 where the completion's final answer equals the column's as mathematics (`1/2` is `0.5`).
    That is what the last `<answer>` tags hold, else the last closed `\\boxed{}`, else the last
    number. Where the column is a number, so has to be the answer: `17 + 25` is not 42."""

    answer: Column = "answer"
    """Column of the row that holds the right answer."""


class ExactReward(ReadsAnswer):
    """1 where the completion is the column's text, white space at both ends aside; else 0."""

    answer: Column = "answer"
    """Column of the row that holds the right answer."""
    pattern: Pattern | None = None
    """Compare what this regular expression's first group finds last in the completion, instead of
    the whole completion."""
    ignore_case: bool = False
    """Do not tell upper from lower case."""


class RegexReward(Reads):
    """1 where a regular expression is found in the completion, else 0."""

    pattern: Pattern
    """The regular expression (Python's syntax)."""


class ChoiceReward(ReadsAnswer):
    """1 where the letter that the completion settles on is the column's, else 0. That is the last
    one called the answer, else the last in brackets, before `)`, `.` or `:`, or ending a line."""

    answer: Column = "answer"
    """Column of the row that holds the right letter."""
    choices: Annotated[str, Field(min_length=2, max_length=26, pattern=r"^[A-Z]+$")] = "ABCD"
    """The letters to choose from."""


class TagsReward(Reads):
    """The share of tags that stand in the completion exactly once, closed and in this order."""

    tags: Annotated[tuple[_Tag, ...], Field(min_length=1, max_length=16)]
    """The tags, such as [think, answer]."""


class JsonSchemaReward(ReadsAnswer):
    """1 where the completion is JSON (a code fence around it is allowed) that obeys a schema."""

    definition: Annotated[str, Field(min_length=2, max_length=16384)] = "{}"
    """The schema (draft 2020-12), as JSON text; `{}` accepts all JSON."""


class LengthReward(Reads):
    """1 where the completion's length lies in a band."""

    unit: Literal["Characters", "Words", "Tokens"] = "Words"
    """What is counted."""
    least: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """The shortest length that scores 1."""
    most: Annotated[int, Field(ge=1, le=10_000_000)]
    """The longest length that scores 1."""
    tolerance: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Beyond the band the score falls to 0 over this length."""


class LanguageReward(Reads):
    """The probability that the completion is written in a language."""

    language: Annotated[str, Field(max_length=2, pattern=r"^[a-z]{2}$")]
    """The language by its two letters (ISO 639-1), such as `en`."""


class RepetitionReward(Reads):
    """The share of the completion's word n-grams that are distinct; 1 without repetition."""

    ngram: Annotated[int, Field(ge=1, le=64)] = 4
    """Words in a row."""


class BannedReward(Reads):
    """1 where none of the phrases stands in the completion as whole words, else 0."""

    phrases: Annotated[tuple[_Phrase, ...], Field(min_length=1, max_length=256)]
    """What must not be said."""
    ignore_case: bool = True
    """Do not tell upper from lower case."""


class ReasoningGymReward(ReadsAnswer):
    """The score that a reasoning-gym task gives to the answer."""

    task: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9_]{1,64}$")]
    """Name of the task, such as `chain_sum`."""
    entry: Column = "entry"
    """Column of the row that holds the task's entry, as an object or as JSON text."""
    pattern: Pattern | None = None
    """The answer is what this regular expression's first group finds last in the completion;
    without it, the whole completion."""


class PythonReward(Message):
    """A function of the user's, run in the isolated runner; the signature is TRL's."""

    config_map: str
    key: str
    function: str = "score"
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    memory_bytes: Annotated[int, Field(gt=0)] = 2**30
    allow_unconfined: bool = False


class HttpReward(Message):
    """A service that scores batches over HTTP; docs/rewards.md has its OpenAPI schema."""

    url: Annotated[HttpUri, Reach.SERVER]
    """A Service in the job's namespace (`http://judge/score`), or a host that the operator's chart
    allows."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """How often a request that got no answer, 401, 403, 408, 429 or 5xx is sent again, with the
    same key."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Completions in one request."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    """Requests under way at once, of all workers together."""
    pause_seconds: Annotated[float, Field(gt=0)] = 1800.0


class ModelReward(Message):
    """The logit of a sequence-classification model with one label."""

    uri: Uri
    """Where the model is; read with the credentials of spec.model."""
    revision: Revision | None = None
    """Commit, tag or branch for hf."""


class BuiltinReward(Message):
    """One reward, and its source where that is builtin."""

    name: Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Its name in metrics and status."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Its weight in the total. A completion that some rewards did not score has its total from the
    others, their weights scaled up."""
    gate: float | None = None
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


class Reward(BuiltinReward):
    """One reward, which has exactly one source."""

    python: PythonReward | None = None
    http: HttpReward | None = None
    model: ModelReward | None = None

    @property
    def source(self) -> Message:
        """Return the one source that is set."""
        sources: list[Message | None] = [getattr(self, name) for name in SOURCES]
        return next(source for source in sources if source is not None)

    @property
    def isolated(self) -> bool:
        """Tell whether it is scored by the isolated runner, not by the trainer itself."""
        return self.http is None and self.model is None


SOURCES = tuple(
    name
    for name in Reward.model_fields
    if name not in {"name", "weight", "gate", "on_error", "fail_after"}
)

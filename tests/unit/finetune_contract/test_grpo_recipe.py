"""GRPO's part of a recipe: its digests, and what its fields mean where they go unsaid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_contract.grpo import CLIPS, GrpoLoss, GrpoRecipe
from finetune_contract.recipe import Recipe
from finetune_contract.rewards import SOURCES, Reward

LEAST: dict[str, Any] = {"rewards": [{"name": "right", "math": {}}]}

# Every field of every reward, none of them at its default.
REWARDS: list[dict[str, Any]] = [
    {
        "name": "right",
        "weight": 2.0,
        "gate": 0.5,
        "onError": "FailAfter",
        "failAfter": 7,
        "math": {"of": "Whole", "answer": "solution"},
    },
    {
        "name": "exact",
        "exact": {"of": "Whole", "answer": "b", "pattern": "(.)", "ignoreCase": True},
    },
    {"name": "regex", "regex": {"of": "Answer", "pattern": "x"}},
    {"name": "choice", "choice": {"of": "Whole", "answer": "letter", "choices": "ABC"}},
    {"name": "tags", "tags": {"of": "Answer", "tags": ["think", "answer"]}},
    {"name": "schema", "jsonSchema": {"of": "Whole", "definition": '{"type":"object"}'}},
    {
        "name": "length",
        "length": {"of": "Answer", "unit": "Tokens", "least": 3, "most": 9, "tolerance": 2},
    },
    {"name": "language", "language": {"of": "Answer", "language": "de"}},
    {"name": "repetition", "repetition": {"of": "Answer", "ngram": 3}},
    {"name": "banned", "banned": {"of": "Answer", "phrases": ["as an AI"], "ignoreCase": False}},
    {
        "name": "gym",
        "reasoningGym": {"of": "Whole", "task": "sums", "entry": "e", "pattern": "(.)"},
    },
    {
        "name": "mine",
        "python": {
            "configMap": "rewards",
            "key": "reward.py",
            "function": "judge",
            "timeoutSeconds": 5.0,
            "memoryBytes": 4096,
            "allowUnconfined": True,
        },
    },
    {
        "name": "service",
        "http": {
            "url": "http://scorer/score",
            "timeoutSeconds": 4.0,
            "retries": 1,
            "batchSize": 8,
            "concurrency": 2,
            "pauseSeconds": 60.0,
        },
    },
    {"name": "model", "model": {"uri": "hf://a/judge", "revision": "abc"}},
]
EVERYTHING: dict[str, Any] = {
    "groupSize": 4,
    "loss": "GSPO",
    "clipLow": 0.1,
    "clipHigh": 0.3,
    "beta": 0.04,
    "scaleRewards": "Batch",
    "aggregate": "GDPO",
    "iterations": 2,
    "maskTruncated": True,
    "softPunishTokens": 16,
    "maxResamples": 3,
    "nothingToLearnSteps": 5,
    "sampling": {
        "maxTokens": 64,
        "temperature": 0.7,
        "topP": 0.9,
        "topK": 40,
        "stop": ["</answer>"],
    },
    "rewards": REWARDS,
}


def recipe(grpo: dict[str, Any]) -> Recipe:
    data = {"train": [{"uri": "s3://d/a.jsonl"}]}
    model = {"uri": "hf://a/b"}
    return Recipe.model_validate({"model": model, "data": data, "method": "GRPO", "grpo": grpo})


# Jobs that run while the operator is upgraded: another digest throws their checkpoints away.
@pytest.mark.parametrize(
    ("grpo", "digest"),
    [
        (LEAST, "c126e4dc159a348151f60be1b2c8b2c57b6e25a379a95258cacca19b986a437b"),
        (EVERYTHING, "971ea5537e99faddae6205cd0350a14df402a65e5eae0d7bda9299f3a49618a6"),
    ],
    ids=["least", "everything"],
)
def test_digests_never_change(grpo: dict[str, Any], digest: str) -> None:
    assert recipe(grpo).digest() == f"sha256:{digest}"


@pytest.mark.parametrize("grpo", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_what_was_said_is_what_is_written(grpo: dict[str, Any]) -> None:
    written = json.loads(recipe(grpo).to_json())
    assert written["grpo"] == grpo
    assert Recipe.model_validate(written) == recipe(grpo)


def test_everything_is_all_that_can_be_said() -> None:
    """So that a field that is added is pinned too."""

    def said(model: Any, value: dict[str, Any]) -> None:
        assert set(value) == {field.alias for field in model.model_fields.values()}

    said(GrpoRecipe, EVERYTHING)
    said(GrpoRecipe.model_fields["sampling"].annotation, EVERYTHING["sampling"])
    seen: set[str] = set()
    for document in REWARDS:
        seen |= document.keys()
        source = Reward.model_validate(document).source
        said(type(source), next(v for v in document.values() if isinstance(v, dict)))
    assert seen == {field.alias for field in Reward.model_fields.values()}
    assert len(REWARDS) == len(SOURCES)


def test_defaults_never_change() -> None:
    """Unsaid, they must mean to every reader what they meant to the writer."""
    defaults = recipe(LEAST).model_dump(mode="json", by_alias=True, exclude_none=True)["grpo"]
    assert defaults == {
        "groupSize": 8,
        "loss": "DAPO",
        "beta": 0.0,
        "aggregate": "WeightedSum",
        "iterations": 1,
        "maskTruncated": False,
        "softPunishTokens": 0,
        "maxResamples": 0,
        "nothingToLearnSteps": 20,
        "sampling": {"maxTokens": 512, "temperature": 1.0, "topP": 1.0, "topK": 0, "stop": []},
        "rewards": [
            {
                "name": "right",
                "weight": 1.0,
                "onError": "Mask",
                "failAfter": 100,
                "math": {"answer": "answer", "of": "Answer"},
            }
        ],
    }


@pytest.mark.parametrize(
    ("source", "said", "meant"),
    [
        ("exact", {}, {"of": "Answer", "answer": "answer", "ignoreCase": False}),
        ("choice", {}, {"of": "Answer", "answer": "answer", "choices": "ABCD"}),
        ("jsonSchema", {}, {"of": "Answer", "definition": "{}"}),
        (
            "length",
            {"most": 9},
            {"of": "Whole", "unit": "Words", "least": 0, "most": 9, "tolerance": 0},
        ),
        ("repetition", {}, {"of": "Whole", "ngram": 4}),
        ("banned", {"phrases": ["x"]}, {"of": "Whole", "phrases": ["x"], "ignoreCase": True}),
        ("reasoningGym", {"task": "sums"}, {"of": "Answer", "task": "sums", "entry": "entry"}),
        (
            "python",
            {"configMap": "c", "key": "k"},
            {
                "configMap": "c",
                "key": "k",
                "function": "score",
                "timeoutSeconds": 60.0,
                "memoryBytes": 2**30,
                "allowUnconfined": False,
            },
        ),
        (
            "http",
            {"url": "http://s"},
            {
                "url": "http://s",
                "timeoutSeconds": 30.0,
                "retries": 3,
                "batchSize": 1,
                "concurrency": 64,
                "pauseSeconds": 1800.0,
            },
        ),
    ],
)
def test_a_rewards_defaults_never_change(
    source: str, said: dict[str, Any], meant: dict[str, Any]
) -> None:
    reward = Reward.model_validate({"name": "a", source: said})
    assert reward.model_dump(mode="json", by_alias=True, exclude_none=True)[source] == meant


def test_the_losses_own_clips_never_change() -> None:
    """Unsaid, they are the loss's: the digest does not tell of them."""
    assert CLIPS == {
        GrpoLoss.GRPO: (0.2, 0.2),
        GrpoLoss.DR_GRPO: (0.2, 0.2),
        GrpoLoss.DAPO: (0.2, 0.28),
        GrpoLoss.GSPO: (3e-4, 4e-4),
        GrpoLoss.CISPO: (0.0, 5.0),
    }
    assert recipe(EVERYTHING).grpo.clips == (0.1, 0.3)  # type: ignore[union-attr]
    scalings = {
        loss: recipe({**LEAST, "loss": loss.value}).grpo.scaling.value  # type: ignore[union-attr]
        for loss in GrpoLoss
    }
    assert scalings == {loss: "None" if loss is GrpoLoss.DR_GRPO else "Group" for loss in GrpoLoss}

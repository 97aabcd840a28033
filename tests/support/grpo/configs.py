"""RunConfigs of GRPO for tests, and prompts to train on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_contract.runconfig import RunConfig
from support.trainer.runs import run_config

# One that random models meet now and then: half of all groups have a spread.
VOWEL = {"name": "vowel", "regex": {"pattern": "[aeiouAEIOU0-9]"}}
SHORT = {"name": "short", "weight": 0.5, "length": {"unit": "Characters", "most": 3}}


def grpo_config(
    directory: Path,
    *,
    grpo: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    socket: Path | None = None,
    **options: Any,
) -> RunConfig:
    """Return what `run_config` does, with method GRPO; a batch is 16 completions, a group 4.

    `socket` is a reward runner's.
    """
    recipe = {"groupSize": 4, "sampling": {"maxTokens": 8}, "rewards": [VOWEL, SHORT]}
    if socket is not None:
        options["rewardRunner"] = {"socket": str(socket)}
    plain = run_config(
        directory,
        training={"globalBatchSize": 16, "sequenceLength": 64, **(training or {})},
        **options,
    )
    document = plain.model_dump(mode="json", by_alias=True)
    document["recipe"] |= {"method": "GRPO", "grpo": {**recipe, **(grpo or {})}}
    return RunConfig.model_validate(document)


def prompts(count: int) -> list[dict[str, Any]]:
    """Return rows of prompts of unequal length, each with its answer."""
    return [
        {"prompt": f"{number} + {number * number} = ?", "answer": str(number + number * number)}
        for number in range(count)
    ]

"""What rewards are asked of completions, and what of their answers is kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from finetune_contract.rewards import Reward
from finetune_rewards.scores.samples import Item
from finetune_trainer.methods.grpo.prompts.dataset import Prompts
from finetune_trainer.methods.grpo.rewards.scores import Scores, Share, decoded, scored
from support.grpo.stand_ins import LETTERS, FunctionPanel, completion, numbered_prompts
from support.trainer.thread_ranks import on_ranks

CHAT = [{"role": "user", "content": "2 + 2?"}]


def prompts() -> Prompts:
    """Return a chat, and a plain text of which a column is missing."""
    rows = [{"prompt": CHAT, "columns": {"row": 0}}, {"prompt": "1 + 1 =", "columns": {}}]
    documents = [json.dumps(row).encode() for row in rows]
    return Prompts(
        numbered_prompts(2).data,
        ("row",),
        np.frombuffer(b"".join(documents), dtype=np.uint8),
        np.cumsum([0, *map(len, documents)]),
    )


def test_a_completion_has_the_form_of_its_prompt() -> None:
    samples = decoded(prompts(), [0, 1, 0], [completion(c) for c in "425"], LETTERS, 7)
    assert samples.prompts == [CHAT, "1 + 1 =", CHAT]
    assert samples.completions == [
        [{"role": "assistant", "content": "4"}],
        "2",
        [{"role": "assistant", "content": "5"}],
    ]
    assert samples.completion_ids == [[52], [50], [53]]
    assert samples.columns == {"row": [0, None, 0]}
    assert samples.step == 7


def test_replacing_scores_keeps_the_cost_of_what_was_replaced() -> None:
    first = Scores(
        np.array([[1.0], [np.nan], [3.0]]),
        np.array([[False], [True], [False]]),
        np.array([1]),
        np.array([2.0]),
        {"a": "first", "b": "kept"},
    )
    again = Scores(
        np.array([[np.nan], [5.0]]),
        np.array([[True], [False]]),
        np.array([4]),
        np.array([8.0]),
        {"a": "later", "c": "new"},
    )
    both = first.put(np.array([0, 1]), again)
    assert both.values.ravel().tolist() == pytest.approx([np.nan, 5.0, 3.0], nan_ok=True)
    assert both.failed.ravel().tolist() == [True, False, False]
    assert (both.failures.tolist(), both.seconds.tolist()) == ([5], [10.0])
    assert both.errors == {"a": "first", "b": "kept", "c": "new"}
    assert first.values[0, 0] == 1.0, "the first are as they were"
    assert not first.failed[0, 0]


def test_the_first_error_of_a_reward_is_told_and_a_silent_reward_has_none() -> None:
    items = [Item(error="first"), Item(score=0.5), Item(error="second"), Item()]
    panel: Any = FunctionPanel({"b": lambda text: items[int(text)]})
    samples = decoded(prompts(), [1] * 4, [completion(c) for c in "0123"], LETTERS, 0)
    rewards = [Reward.model_validate({"name": n, "regex": {"pattern": "x"}}) for n in "ab"]
    found = on_ranks(
        1,
        lambda ranks: scored(
            panel, Share(samples, np.arange(4), 4), ranks, rewards, lambda: False, lambda *_: None
        ),
    )[0]
    assert found is not None
    assert found.errors == {"b": "first"}
    assert found.failures.tolist() == [0, 2]
    assert np.isnan(found.values).tolist() == [[True, n != 1] for n in range(4)]
    assert found.failed.tolist() == [[False, n in (0, 2)] for n in range(4)]

"""From rewards alone a model learns what it could do now and then.

A habit in seconds, on prompts that it has not seen; a task that has right answers among the slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.rewards import Reward
from finetune_rewards.runner.child import runner_child
from finetune_trainer.process.distributed import Ranks
from support.grpo.configs import VOWEL, grpo_config
from support.grpo.speller import (
    HELD_OUT,
    LONGEST,
    PROMPTS,
    entries,
    half_taught,
    load,
    pass_at_1,
    question,
    train,
)
from support.models.tiny_llama import write_model, write_rows

SPELLED = {"name": "spelled", "reasoningGym": {"task": "spell_backward"}}
GAIN = 0.15  # of pass@1
# At the beginning: names of special tokens, which rewards see, hold vowels too.
PATTERN = "^" + VOWEL["regex"]["pattern"]
BEGINS = {"name": "vowel", "regex": {"pattern": PATTERN}}


def vowel_chance(model: Path, asked: list[str], adapter: Path | None = None) -> float:
    """Return the mean probability that a completion begins with what BEGINS rewards."""
    import torch

    tokenizer, loaded = load(model, adapter)
    wanted = [i for i in range(len(tokenizer)) if re.fullmatch(PATTERN, tokenizer.decode([i]))]
    with torch.no_grad():
        chances = [
            loaded(**tokenizer(text, return_tensors="pt")).logits[0, -1].softmax(-1)[wanted].sum()
            for text in asked
        ]
    return float(torch.stack(chances).mean())


def test_rewards_teach_a_habit(tmp_path: Path, alone: Ranks) -> None:
    rows = [{"prompt": f"{number}>"} for number in range(100, 180)]
    write_rows(tmp_path / "train.jsonl", rows[:64])
    model = write_model(tmp_path / "model", chat_template=None)
    held_out = [row["prompt"] for row in rows[64:]]
    with runner_child([Reward.model_validate(BEGINS)], {}, tmp_path / "rewards.sock"):
        config = grpo_config(
            tmp_path,
            model=model,
            socket=tmp_path / "rewards.sock",
            grpo={"groupSize": 8, "sampling": {"maxTokens": 2}, "rewards": [BEGINS]},
            lora={"targets": ["Attention", "MLP", "Head"]},
            training={"maxSteps": 12, "globalBatchSize": 64, "learningRate": 2e-2},
            microBatchSize=64,
        )
        adapter = train(config, alone)
    before, after = vowel_chance(model, held_out), vowel_chance(model, held_out, adapter)
    assert before < 0.2
    assert after > 0.4


class Speller:
    """The half-taught model, its prompts, and a runner of its reward."""

    def __init__(self, model: Path, directory: Path, ranks: Ranks) -> None:
        self.model = model
        self._directory = directory
        self._ranks = ranks
        self._rows = entries()
        prompts = [
            {"prompt": question(entry), "entry": entry}
            for entry in self._rows[HELD_OUT : HELD_OUT + PROMPTS]
        ]
        write_rows(directory / "train.jsonl", prompts)
        self.before = self.pass_at_1()

    def pass_at_1(self, adapter: Path | None = None) -> float:
        return pass_at_1(self.model, self._rows[:HELD_OUT], adapter)

    def gain(self, seed: int) -> float:
        """Return by how much a run raises the share of held-out words spelled right."""
        config = grpo_config(
            self._directory,
            model=self.model,
            output=(self._directory / f"out-{seed}").as_uri(),
            socket=self._directory / "rewards.sock",
            grpo={
                "groupSize": 8,
                "sampling": {"maxTokens": LONGEST + 2},
                "rewards": [SPELLED],
            },
            lora={"rank": 16, "alpha": 32},
            training={
                "maxSteps": 40,
                "globalBatchSize": 128,
                "sequenceLength": 32,
                "learningRate": 2e-3,
                "seed": seed,
            },
            microBatchSize=128,
        )
        return self.pass_at_1(train(config, self._ranks)) - self.before


@pytest.fixture(scope="module")
def speller(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, alone: Ranks
) -> Iterator[Speller]:
    cache = request.config.cache
    assert cache is not None, "pytest's own plugin"
    model = half_taught(cache.mkdir("models"), alone)
    directory = tmp_path_factory.mktemp("speller")
    with runner_child([Reward.model_validate(SPELLED)], {}, directory / "rewards.sock"):
        yield Speller(model, directory, alone)


@pytest.mark.slow
def test_sft_has_taught_it_in_part(speller: Speller) -> None:
    assert 0.2 <= speller.before <= 0.4, speller.before


@pytest.mark.slow
def test_rewards_teach_the_rest(speller: Speller) -> None:
    assert speller.gain(seed=0) >= GAIN, "pass@1 must rise"


@pytest.mark.slow
def test_nine_of_ten_seeds_learn(speller: Speller) -> None:
    gains = [speller.gain(seed) for seed in range(1, 11)]
    assert sum(gain >= GAIN for gain in gains) >= 9, gains

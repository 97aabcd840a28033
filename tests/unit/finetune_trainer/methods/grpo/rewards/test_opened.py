"""Rewards before a run: who they are stands in its provenance, and none is quietly left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_contract.artifact import RewardIdentity
from finetune_contract.reasons import Reason
from finetune_contract.rewards import Reward
from finetune_rewards.runner.child import runner_child
from finetune_trainer.course.progress import Reporter
from finetune_trainer.lead import begin
from finetune_trainer.methods.grpo.rewards.opened import identities, opened_panel
from finetune_trainer.methods.grpo.rewards.reward_model import RewardModels
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from support.grpo.configs import VOWEL, grpo_config, prompts
from support.models.tiny_llama import write_model, write_rows
from support.trainer.ranks_beside import RanksBeside

MINE: dict[str, Any] = {"name": "mine", "python": {"configMap": "rewards", "key": "reward.py"}}


def asked(directory: Path, source: str, ranks: Ranks) -> tuple[RewardIdentity, ...]:
    socket, code = directory / "r.sock", directory / "reward.py"
    code.write_text(source)
    allowed = {**MINE["python"], "allowUnconfined": True}
    rewards = [Reward.model_validate({**MINE, "python": allowed}), Reward.model_validate(VOWEL)]
    documents = [reward.model_dump(mode="json", by_alias=True) for reward in rewards]
    config = grpo_config(directory, grpo={"rewards": documents}, socket=socket)
    with (
        runner_child(rewards, {"mine": code}, socket),
        opened_panel(config, RewardModels(), ranks) as panel,
    ):
        return identities(panel, ranks)


def test_users_code_is_known_by_its_digest(tmp_path: Path, alone: Ranks) -> None:
    ones = "def score(completions, **kwargs):\n    return [1.0] * len(completions)\n"
    [first] = asked(tmp_path, ones, alone)
    [again] = asked(tmp_path, ones, alone)
    [other] = asked(tmp_path, ones.replace("1.0", "2.0"), alone)
    assert first == again
    assert first.name == other.name == "mine"
    assert first.revision != other.revision


def test_ranks_that_hold_different_code_end_the_run(tmp_path: Path, alone: Ranks) -> None:
    other = RewardIdentity(name="mine", revision="sha256:2")
    ranks = RanksBeside(alone, lambda made: [*made, *made, (other,)])
    with pytest.raises(Failure, match=r"reward mine was changed .* ranks 0 and 2 do") as caught:
        asked(tmp_path, "def score(completions):\n    return []\n", ranks)
    assert (caught.value.reason, caught.value.rank) == (Reason.INPUT_CHANGED, 2)


def test_code_that_does_not_load_ends_the_run(tmp_path: Path, alone: Ranks) -> None:
    with pytest.raises(Failure, match="mine") as caught:
        asked(tmp_path, "def score(:\n", alone)
    assert caught.value.reason is Reason.REWARD_INVALID


def test_a_secret_without_a_token_ends_the_run(tmp_path: Path, alone: Ranks) -> None:
    judge = {"name": "judge", "http": {"url": "http://judge/score"}}
    config = grpo_config(
        tmp_path, grpo={"rewards": [judge]}, credentials={"rewards": {"judge": str(tmp_path)}}
    )
    with (
        pytest.raises(Failure, match=r"reward judge.*token") as caught,
        opened_panel(config, RewardModels(), alone),
    ):
        pass
    assert caught.value.reason is Reason.REWARD_INVALID


def test_identities_are_part_of_the_provenance(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", prompts(4))
    known = (RewardIdentity(name="mine", revision="sha256:1"),)
    assert begin(grpo_config(tmp_path), Reporter(), known).provenance.rewards == known

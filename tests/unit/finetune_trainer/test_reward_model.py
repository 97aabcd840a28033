"""A reward model's score is its only logit, for the dialogue as its own tokenizer has it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig

from finetune_contract.reasons import Reason
from finetune_rewards.panel import Panel
from finetune_rewards.samples import Samples
from finetune_trainer import train
from finetune_trainer.distributed import Ranks
from finetune_trainer.errors import Failure
from finetune_trainer.grpo.panel import identities, opened_panel
from finetune_trainer.grpo.reward_model import reward_models
from finetune_trainer.progress import Reporter
from finetune_trainer.stopping import Stop
from finetune_trainer.tokenizer import load_tokenizer
from support.grpo_runs import grpo_config, prompts
from support.tiny_llama import byte_tokenizer, write_model, write_rows
from support.trainer_runs import run_config

TEXTS = ["4", "four, I think", "x" * 40]


def write_judge(directory: Path, labels: int = 1) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=labels,
        initializer_range=0.5,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return model.eval()


def judged(directory: Path) -> Any:
    reward = {"name": "judge", "model": {"uri": f"file://{directory}/judge"}}
    return grpo_config(directory, grpo={"rewards": [reward]})


def opened(directory: Path, ranks: Ranks) -> AbstractContextManager[Panel | None]:
    config = judged(directory)
    return opened_panel(config, reward_models(config, ranks), ranks, Reporter())


def samples(prompt: Any, completions: list[Any]) -> Samples:
    return Samples([prompt] * len(completions), completions, [[1]] * len(completions))


def expected(model: Any, directory: Path, text: str) -> float:
    tokenizer = load_tokenizer(directory / "judge")
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        return float(model.score(model.model(ids).last_hidden_state[0, -1]))


@pytest.fixture
def scored(tmp_path: Path, alone: Ranks) -> Any:
    judge = write_judge(tmp_path / "judge")

    def ask(asked: Samples) -> list[float]:
        with opened(tmp_path, alone) as panel:
            assert panel is not None
            return [item.score or 0.0 for item in panel.score(asked)["judge"].items]

    return ask, judge


def test_a_dialogue_is_scored_whatever_stands_beside_it(scored: Any, tmp_path: Path) -> None:
    ask, judge = scored
    prompt = [{"role": "user", "content": "2+2?"}]
    answers = [[{"role": "assistant", "content": text}] for text in TEXTS]
    tokenizer = load_tokenizer(tmp_path / "judge")
    texts = [tokenizer.apply_chat_template([*prompt, *a], tokenize=False) for a in answers]
    found = ask(samples(prompt, answers))
    assert found == pytest.approx([expected(judge, tmp_path, text) for text in texts], abs=1e-5)
    assert len({round(score, 4) for score in found}) == len(TEXTS)
    assert ask(samples(prompt, answers[::-1] * 4)) == pytest.approx(found[::-1] * 4, abs=1e-5)


def test_plain_text_is_scored_as_it_stands(scored: Any, tmp_path: Path) -> None:
    ask, judge = scored
    found = ask(samples("2+2=", list(TEXTS)))
    wanted = [expected(judge, tmp_path, "2+2=" + text) for text in TEXTS]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_which_model_it_was_is_part_of_the_provenance(tmp_path: Path, alone: Ranks) -> None:
    write_judge(tmp_path / "judge")
    with opened(tmp_path, alone) as panel:
        [identity] = identities(panel, alone)
    assert identity.name == "judge"
    assert len(identity.revision) > 40


def test_what_it_holds_of_the_device_is_known(tmp_path: Path, alone: Ranks) -> None:
    judge = write_judge(tmp_path / "judge")
    weights = sum(parameter.numel() for parameter in judge.parameters())
    rotary = 4 * 4  # of a head of 8: the frequencies, and once more as they were at first
    rewards = [
        {"name": name, "model": {"uri": f"file://{tmp_path}/judge"}} for name in ("judge", "other")
    ]
    one, two = judged(tmp_path), grpo_config(tmp_path, grpo={"rewards": rewards})
    assert reward_models(one, alone).bytes == 4 * weights + 2 * rotary
    assert reward_models(two, alone).bytes == 2 * (4 * weights + 2 * rotary)
    assert reward_models(run_config(tmp_path), alone).bytes == 0


def test_a_run_plans_for_what_it_holds(
    tmp_path: Path, alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def planned(config: Any, model: Any, directory: Any, ranks: Any, held: int) -> Any:
        asked.append(held)
        raise Failure(Reason.INSUFFICIENT_MEMORY, "seen")

    write_judge(tmp_path / "judge")
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", prompts(4))
    config = judged(tmp_path)
    Path(config.layout.scratch_dir).mkdir(exist_ok=True)
    monkeypatch.setattr(train, "resolve", planned)
    with pytest.raises(Failure, match="seen"):
        train.train_and_publish(config, alone, Reporter(), Stop(1.0, leave=lambda: None))
    assert asked == [reward_models(config, alone).bytes]


def test_what_is_no_reward_model_is_refused_by_name(tmp_path: Path, alone: Ranks) -> None:
    def refusal() -> str:
        with (
            pytest.raises(Failure, match="reward judge: its model") as caught,
            opened(tmp_path, alone),
        ):
            pass
        assert caught.value.reason is Reason.REWARD_INVALID
        return caught.value.message

    write_judge(tmp_path / "judge", labels=3)
    assert "3 labels" in refusal()
    write_model(tmp_path / "chat")
    (tmp_path / "judge").rename(tmp_path / "classes")
    (tmp_path / "chat").rename(tmp_path / "judge")
    refusal()

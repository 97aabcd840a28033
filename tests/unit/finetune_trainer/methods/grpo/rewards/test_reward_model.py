"""Which models may be rewards, what they hold of the device, and who they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from finetune_contract.reasons import Reason
from finetune_trainer import train
from finetune_trainer.fit.fitting import Wish
from finetune_trainer.methods.grpo.rewards.opened import identities
from finetune_trainer.methods.grpo.rewards.reward_model import reward_models
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.run import Run
from support.grpo.configs import grpo_config, prompts
from support.models.tiny_llama import write_model, write_rows
from support.rewards.reward_models import SHAPE, judged, opened, write_judge
from support.services.hub import COMMIT, hub_server
from support.trainer.parts import run_of


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


def test_it_is_asked_for_by_its_revision_and_with_the_models_credentials(
    tmp_path: Path, alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_judge(tmp_path / "judge")
    (tmp_path / "HF_TOKEN").write_text("hf_good")
    model = {"uri": "hf://org/judge", "revision": COMMIT}
    config = grpo_config(
        tmp_path,
        grpo={"rewards": [{"name": "judge", "model": model}]},
        credentials={"model": str(tmp_path)},
    )
    with hub_server() as hub:
        files = {path.name: path.read_bytes() for path in (tmp_path / "judge").iterdir()}
        hub.files, hub.token = {"models/org/judge": files}, "hf_good"
        hub.commits.append("decade00" * 5)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        [identity] = reward_models(config, alone).identities
    assert identity.revision == COMMIT


def test_a_run_plans_for_what_it_holds(
    tmp_path: Path, alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def planned(run: Run, model: Any, directory: Any, asks: Callable[[Wish], Wish]) -> Any:
        asked.append(asks(Wish.of(run.config, on_gpu=False)).reward_models)
        raise Failure(Reason.INSUFFICIENT_MEMORY, "seen")

    write_judge(tmp_path / "judge")
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", prompts(4))
    config = judged(tmp_path)
    Path(config.layout.scratch_dir).mkdir(exist_ok=True)
    monkeypatch.setattr(train, "resolve", planned)
    with pytest.raises(Failure, match="seen"):
        train.train_and_publish(run_of(config, alone))
    assert asked == [reward_models(config, alone).bytes]


def refusal(directory: Path, ranks: Ranks) -> str:
    with pytest.raises(Failure) as caught, opened(directory, ranks):
        pass
    assert caught.value.reason is Reason.REWARD_INVALID
    assert caught.value.message.startswith("reward judge: its model")
    return caught.value.message


REMEDY = "; take one that was trained and saved as a sequence classifier with num_labels=1"


@pytest.mark.parametrize("labels", [2, 3])
def test_classifiers_of_several_labels_are_refused(
    tmp_path: Path, alone: Ranks, labels: int
) -> None:
    write_judge(tmp_path / "judge", num_labels=labels)
    assert refusal(tmp_path, alone).endswith(f"has {labels} labels, not one{REMEDY}")


@pytest.mark.parametrize(
    ("model_type", "head"), [("llama", "score.weight"), ("bert", "classifier.bias")]
)
@pytest.mark.parametrize("labels", [1, 2])  # transformers takes two where config.json tells none
def test_models_without_a_trained_head_are_refused(
    tmp_path: Path, alone: Ranks, model_type: str, head: str, labels: int
) -> None:
    judge = write_judge(tmp_path / "judge", model_type, num_labels=labels)
    weights = {k: v for k, v in judge.state_dict().items() if k.split(".")[0] != head.split(".")[0]}
    judge.save_pretrained(tmp_path / "judge", state_dict=weights)
    assert f"files lack {head}, so it would be random{REMEDY}" in refusal(tmp_path, alone)


def test_chat_models_are_refused(tmp_path: Path, alone: Ranks) -> None:
    write_model(tmp_path / "judge")
    assert "files lack score.weight, so it" in refusal(tmp_path, alone)


def test_files_that_do_not_fit_are_refused(tmp_path: Path, alone: Ranks) -> None:
    write_judge(tmp_path / "judge", num_labels=3)
    config = tmp_path / "judge/config.json"
    one = AutoConfig.for_model("llama", **SHAPE, num_labels=1)
    one.architectures = ["LlamaForSequenceClassification"]
    whole = config.read_text()
    one.save_pretrained(tmp_path / "judge")
    assert f"of other sizes than config.json tells{REMEDY}" in refusal(tmp_path, alone)
    config.write_text(whole)
    weights = tmp_path / "judge/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "can not be loaded" in refusal(tmp_path, alone)
    config.write_text('{"model_type": "unheard_of"}')
    assert "can not be loaded" in refusal(tmp_path, alone)


def test_what_is_wrong_with_its_files_names_the_reward(tmp_path: Path, alone: Ranks) -> None:
    write_judge(tmp_path / "judge")
    (tmp_path / "judge/tokenizer.json").unlink()
    with pytest.raises(Failure, match=r"^reward judge: the model's tokenizer can not be loaded"):
        reward_models(judged(tmp_path), alone)
    (tmp_path / "judge/model.safetensors").unlink()
    with pytest.raises(Failure, match=r"^reward judge: file:.* holds no \*\.safetensors file"):
        reward_models(judged(tmp_path), alone)

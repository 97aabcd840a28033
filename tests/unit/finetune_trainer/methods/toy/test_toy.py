"""A method that the trainer has never heard of trains: its package is all that it takes."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from finetune_contract.recipe import MethodType
from finetune_trainer.methods import registry
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.train import train_and_publish
from support.models.tiny_llama import write_model, write_rows
from support.trainer.parts import run_of
from support.trainer.runs import run_config
from unit.finetune_trainer.methods.toy.method import VOWELS

TEXTS = ["a tall tree", "oh", "why try", "an idea of old"]


def weighted_loss(model: Path) -> tuple[float, float]:
    """Return the mean loss of the texts under the base model, and their share of vowels."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    causal = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    losses, weights = [], []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = causal(input_ids=ids).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
        weights.append(1.0 + torch.isin(ids[0, 1:], VOWELS))
    weight = torch.cat(weights)
    loss = (weight * torch.cat(losses)).sum() / weight.sum()
    return float(loss), float((weight == 2).float().mean())


def test_a_method_needs_no_file_outside_its_package(
    tmp_path: Path, alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "unit.finetune_trainer.methods.toy.method"
    monkeypatch.setitem(registry.MODULES, MethodType.SFT, module)
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", [{"text": text} for text in TEXTS])
    (tmp_path / "scratch").mkdir()
    training = {"globalBatchSize": 4, "maxSteps": 2, "learningRate": 0.1}
    published = train_and_publish(run_of(run_config(tmp_path, training=training), alone))

    artifact = Path(urlsplit(published.uri).path)
    first, second = map(json.loads, (artifact / "metrics.jsonl").read_text().splitlines())
    loss, vowels = weighted_loss(tmp_path / "model")
    assert first["loss"] == pytest.approx(loss, rel=1e-5)
    assert second["loss"] < loss
    assert first["toy/vowels"] == pytest.approx(vowels)
    assert "Share of vowels" in (artifact / "report.html").read_text()

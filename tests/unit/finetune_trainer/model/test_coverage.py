"""After training, under every ZeRO stage: all that was asked for has moved, and nothing else.

One group of two processes trains all cases, with every role that each model has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_contract.artifact import Manifest
from finetune_contract.model import sha256_digest
from finetune_contract.recipe import Precision
from finetune_contract.runconfig import RunConfig
from finetune_trainer.model.base import load_model
from support.models.tiny_llama import sums, write_rows
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, assert_close
from support.trainer.fork_server import ForkServer
from support.trainer.runs import Trained, run_config, train_group

pytestmark = pytest.mark.slow

ROLES = {
    "llama": {"Attention": 8, "MLP": 6, "Embeddings": 1, "Head": 1},
    "qwen3-moe": {"Attention": 8, "Experts": 4, "Router": 2},
    "deepseek-v3": {"Attention": 15, "MLP": 3, "Experts": 4, "SharedExperts": 6},
}
STAGES = (0, 1, 2, 3)
CASES = [(name, stage) for name in ROLES for stage in STAGES]
RANK = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: write_tiny(name, root / name, initializer_range=0.1) for name in ROLES}


@pytest.fixture(scope="module")
def trained(
    server: ForkServer, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Trained]:
    root = tmp_path_factory.mktemp("coverage")
    write_rows(root / "train.jsonl", sums(16))
    cases = {}
    for name, stage in CASES:
        lora = {"rank": RANK, "targets": list(ROLES[name])}
        cases[f"{name}-{stage}"] = job(root, models[name], f"{name}-{stage}", stage, lora)
    lora = {"targets": ["Attention", "MLP"], "quantization": "NF4"}
    for stage in STAGES:
        nf4 = job(root, models["llama"], f"nf4-{stage}", stage, lora, export=("Adapter",))
        cases[f"nf4-{stage}"] = nf4
        dora = {"targets": ["Attention", "MLP"], "dora": True}
        cases[f"dora-{stage}"] = job(root, models["llama"], f"dora-{stage}", stage, dora)
    old = cases["deepseek-v3-2"].layout.output_uri  # trained before these, in the same group
    for stage in (2, 3):
        lora = {"rank": RANK, "targets": list(ROLES["deepseek-v3"])}
        name = f"continued-{stage}"
        cases[name] = job(root, models["deepseek-v3"], name, stage, lora, init_from=old)
    return train_group(server, 2, cases, root / "group")


def job(
    root: Path,
    model: Path,
    name: str,
    stage: int,
    lora: dict[str, Any],
    export: tuple[str, ...] = ("Adapter", "Merged"),
    init_from: str | None = None,
) -> RunConfig:
    directory = root / name
    directory.mkdir()
    config = run_config(
        directory,
        model=model,
        data=root / "train.jsonl",
        lora=lora,
        training={"maxSteps": 3, "learningRate": 1e-2, "globalBatchSize": 4},
        zeroStage=stage,
        microBatchSize=2,
        processesPerWorker=2,
    )
    document = config.model_dump(mode="json", by_alias=True)
    document["recipe"]["export"] = list(export)
    document["recipe"]["model"]["initFrom"] = init_from
    return RunConfig.model_validate(document)


def published(case: Trained, name: str) -> Path:
    (directory,) = (case.directory.parents[1] / name).glob("out/runs/*/a1/*/artifact")
    return directory


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_every_adapter_tensor_is_whole_and_has_moved(
    trained: Mapping[str, Trained], name: str, stage: int
) -> None:
    tensors = trained[f"{name}-{stage}"].tensors("adapter")
    assert len(tensors) == 2 * sum(ROLES[name].values())
    assert all(tensor.numel() for tensor in tensors.values())
    # What begins at zero: B, and A where an embedding is adapted.
    began = [n for n in tensors if "lora_B" in n or "lora_embedding_A" in n]
    assert len(began) == sum(ROLES[name].values())
    assert all(tensors[n].any() for n in began)


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_the_artifact_tells_its_coverage_and_merges(
    trained: Mapping[str, Trained], models: dict[str, Path], name: str, stage: int
) -> None:
    case = trained[f"{name}-{stage}"]
    directory = published(case, f"{name}-{stage}")
    manifest = Manifest.model_validate_json((directory / "manifest.json").read_bytes())
    assert {str(c.role): (c.found, c.adapted) for c in manifest.lora} == {
        role: (count, count) for role, count in ROLES[name].items()
    }
    assert manifest.serving is not None
    assert not manifest.serving.vllm
    assert any(entry.path == "merged/model.safetensors" for entry in manifest.files)
    before = load_file(models[name] / "model.safetensors")
    after = load_file(directory / "merged" / "model.safetensors")
    same = {n for n in before if torch.equal(before[n], after[n])}
    kept = {n for n in before if "norm" in n or n.endswith("e_score_correction_bias")}
    if "Router" not in ROLES[name]:
        kept |= {n for n in before if n.endswith("mlp.gate.weight")}
    if "Embeddings" not in ROLES[name]:
        kept |= {"model.embed_tokens.weight", "lm_head.weight"}
    assert same == kept


@pytest.mark.parametrize("kind", [*ROLES, "nf4", "dora"])
def test_the_stage_does_not_change_the_numbers(trained: Mapping[str, Trained], kind: str) -> None:
    first = trained[f"{kind}-0"]
    for stage in STAGES[1:]:
        other = trained[f"{kind}-{stage}"]
        assert other.losses == pytest.approx(first.losses, rel=5e-5)


@pytest.mark.parametrize("name", ROLES)
def test_the_merged_model_answers_as_the_trained_one(
    trained: Mapping[str, Trained], name: str
) -> None:
    case = trained[f"{name}-3"]
    merged = load_model(published(case, f"{name}-3") / "merged", Precision.FP32).eval()
    adapted = case.tensors("logits")["logits"]
    from support.models.tiny_llama import byte_tokenizer

    tokens = byte_tokenizer().apply_chat_template(
        sums(1)[0]["messages"], return_tensors="pt", return_dict=True
    )["input_ids"][:, : adapted.shape[1]]
    with torch.no_grad():
        logits = merged(input_ids=tokens).logits
    assert_close(logits, adapted, terms=TINY_MODEL)


@pytest.mark.parametrize("stage", STAGES)
def test_a_quantised_base_trains_under_every_stage(
    trained: Mapping[str, Trained], stage: int
) -> None:
    tensors = trained[f"nf4-{stage}"].tensors("adapter")
    assert len(tensors) == 28
    assert all(t.any() for t in tensors.values())
    assert not (published(trained[f"nf4-{stage}"], f"nf4-{stage}") / "merged").exists()


@pytest.mark.parametrize("stage", [2, 3])
def test_training_goes_on_from_an_adapter_under_every_stage(
    trained: Mapping[str, Trained], stage: int
) -> None:
    begun, continued = trained["deepseek-v3-2"], trained[f"continued-{stage}"]
    assert continued.losses[0] < begun.losses[0] - 0.1  # the same rows, an adapter that knows them
    assert continued.losses == pytest.approx(trained["continued-2"].losses, rel=5e-5)
    old = published(begun, "deepseek-v3-2") / "manifest.json"
    new = published(continued, f"continued-{stage}") / "manifest.json"
    manifest = Manifest.model_validate_json(new.read_bytes())
    assert manifest.provenance.init_from == sha256_digest(old.read_bytes())

"""Layout never changes the numbers: processes, micro-batches, ZeRO, packing, against oracles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract.runconfig import RunConfig
from support.models.tiny_llama import sums, write_rows
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, assert_close
from support.trainer.fork_server import ForkServer
from support.trainer.oracle import Expected, plain_torch, trl_losses
from support.trainer.runs import Trained, run_config, train_group

ROWS = 17  # two batches of 8 and one of a single row: most ranks and passes have nothing in it
TRL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Model:
    """A tiny model, what of it is adapted, and how far apart two layouts may end."""

    targets: tuple[str, ...]
    tolerance: float
    name: str = "llama"
    config: dict[str, Any] = field(default_factory=dict)


MODELS = {
    "llama": Model(("Attention", "MLP"), 1e-5),
    "qwen3-moe": Model(("Attention", "Experts"), 5e-5, "qwen3-moe"),
    "deepseek-v3": Model(("Attention", "MLP", "Experts", "SharedExperts"), 5e-5, "deepseek-v3"),
    "llama, tied": Model(("Attention",), 1e-5, config={"tie_word_embeddings": True}),
    "llama, head": Model(("MLP", "Head"), 1e-5),
    "olmo2, by inspection": Model(("Attention", "MLP"), 1e-5, "olmo2"),
}
OPTIMIZERS = {
    "AdamW": {"optimizer": "AdamW", "learningRate": 1e-3, "weightDecay": 0.1},
    "SGD": {"optimizer": "SGD", "learningRate": 0.02, "weightDecay": 0.1},
    "SGD, no clipping": {"optimizer": "SGD", "learningRate": 5e-3, "maxGradNorm": 0},
}
HALF = {name: {**OPTIMIZERS["AdamW"], "precision": "BF16"} for name in ("BF16", "BF16, NF4")}
TRAINING = {"epochs": 1, "maxGradNorm": 0.5, "schedule": "Constant", "warmupRatio": 0, "seed": 7}
OFFLOAD = ("Optimizer", "Parameters")
# name -> world size and layout
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "1 process, accumulation": (1, {"zeroStage": 3, "microBatchSize": 2}),
    "1 process, checkpointing": (1, {"microBatchSize": 4, "gradientCheckpointing": "Always"}),
    "1 process, whole batch, padded": (1, {"microBatchSize": 8, "packing": False}),
    "1 process, offload": (1, {"microBatchSize": 4, "offload": OFFLOAD}),
    "2 processes, DDP, padded": (2, {"zeroStage": 0, "microBatchSize": 2, "packing": False}),
    "2 processes, ZeRO-1": (2, {"zeroStage": 1, "microBatchSize": 4}),
    "2 processes, ZeRO-2": (2, {"zeroStage": 2, "microBatchSize": 2}),
    "2 processes, ZeRO-2, checkpointing": (
        2,
        {"zeroStage": 2, "microBatchSize": 4, "gradientCheckpointing": "Always"},
    ),
    "2 processes, ZeRO-2, offload": (
        2,
        {"zeroStage": 2, "microBatchSize": 2, "offload": OFFLOAD[:1]},
    ),
    "2 processes, ZeRO-3": (2, {"zeroStage": 3, "microBatchSize": 2}),
    "2 processes, ZeRO-3, padded": (2, {"zeroStage": 3, "microBatchSize": 2, "packing": False}),
    "2 processes, ZeRO-3, checkpointing": (
        2,
        {"zeroStage": 3, "microBatchSize": 2, "gradientCheckpointing": "Always"},
    ),
    "2 processes, ZeRO-3, offload": (
        2,
        {"zeroStage": 3, "microBatchSize": 4, "offload": OFFLOAD},
    ),
}
Case = tuple[str, str, str]  # model, optimizer, layout
EXACT: list[Case] = list(product(MODELS, OPTIMIZERS, LAYOUTS))
ROUNDED: list[Case] = [
    ("llama", "BF16", layout) for layout in LAYOUTS if layout.endswith(("lation", "-2", "-3"))
]
# The routers of deepseek-v3 are fp32 among weights in BF16.
MIXED: list[Case] = [
    ("deepseek-v3", kind, f"2 processes, ZeRO-{stage}") for kind in HALF for stage in (2, 3)
]
COVERING: set[Case] = {
    *ROUNDED,
    *(case for case in MIXED if "NF4" in case[1]),
    *(("llama", "AdamW", layout) for layout in LAYOUTS if layout != "2 processes, ZeRO-2, offload"),
    ("llama", "SGD", "2 processes, ZeRO-3"),
    *product(("llama",), list(OPTIMIZERS)[2:], ("1 process, accumulation", "2 processes, ZeRO-2")),
    ("qwen3-moe", "AdamW", "2 processes, ZeRO-3"),
    ("deepseek-v3", "AdamW", "2 processes, ZeRO-3, checkpointing"),
    ("deepseek-v3", "SGD", "1 process, accumulation"),
    ("llama, tied", "AdamW", "2 processes, ZeRO-3"),
    ("llama, head", "AdamW", "2 processes, ZeRO-3"),
    ("olmo2, by inspection", "AdamW", "2 processes, ZeRO-3, checkpointing"),
}
Runs = Callable[[Case], Trained]


def marked(cases: Iterable[Case]) -> list[Any]:
    """Return test parameters; what is not in the covering part is slow."""
    return [
        pytest.param(case, id=", ".join(case), marks=[] if case in COVERING else [pytest.mark.slow])
        for case in cases
    ]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    for name, model in MODELS.items():
        write_tiny(model.name, directory / name, **model.config)
    write_rows(directory / "train.jsonl", sums(ROWS))
    return directory


def config_of(inputs: Path, case: Case, output: Path | None = None) -> RunConfig:
    model, optimizer, layout = case
    world, settings = LAYOUTS[layout]
    return run_config(
        inputs,
        model=inputs / model,
        output=(output or inputs / "out").as_uri(),
        lora={
            "targets": MODELS[model].targets,
            "quantization": "NF4" if "NF4" in optimizer else "None",
        },
        training={**TRAINING, **(OPTIMIZERS | HALF)[optimizer]},
        processesPerWorker=world,
        **settings,
    )


@pytest.fixture(scope="module")
def trained(server: ForkServer, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return a function that trains a case with all the others of its part and world size."""

    @cache
    def group(world: int, covering: bool) -> dict[Case, Trained]:
        directory = tmp_path_factory.mktemp(f"world-{world}")
        cases = [
            c
            for c in (*EXACT, *ROUNDED, *MIXED)
            if LAYOUTS[c[2]][0] == world and (c in COVERING) == covering
        ]
        configs = {
            str(index): config_of(inputs, case, directory / "published" / str(index))
            for index, case in enumerate(cases)
        }
        results = train_group(server, world, configs, directory / "group")
        return {case: results[str(index)] for index, case in enumerate(cases)}

    return lambda case: group(LAYOUTS[case[2]][0], case in COVERING)[case]


@pytest.fixture(scope="module")
def oracle(inputs: Path) -> Callable[[str, str], Expected]:
    return cache(lambda model, optimizer: plain_torch(config_of(inputs, _first(model, optimizer))))


def _first(model: str, optimizer: str) -> Case:
    return model, optimizer, "1 process, accumulation"


@pytest.mark.parametrize("case", marked(EXACT))
def test_every_layout_does_the_oracles_steps(
    case: Case, oracle: Callable[[str, str], Expected], trained: Runs
) -> None:
    model, optimizer, _ = case
    tolerance = MODELS[model].tolerance
    expected, result = oracle(model, optimizer), trained(case)
    assert min(expected.norms) > TRAINING["maxGradNorm"]  # clipping, where there is any, bites
    np.testing.assert_allclose(result.losses, expected.losses, rtol=tolerance)
    np.testing.assert_allclose(result.norms, expected.norms, rtol=tolerance)
    adapter = result.tensors("adapter")
    assert adapter.keys() == expected.adapter.keys()
    for name, tensor in expected.adapter.items():
        np.testing.assert_allclose(adapter[name], tensor, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", marked(ROUNDED))
def test_bf16_rounds_the_base_only(case: Case, trained: Runs) -> None:
    import torch

    rounded, exact = trained(case), trained(("llama", "AdamW", case[2]))
    np.testing.assert_allclose(rounded.losses, exact.losses, rtol=0.02)
    assert rounded.losses != exact.losses
    assert {tensor.dtype for tensor in rounded.tensors("adapter").values()} == {torch.float32}


@pytest.mark.parametrize("case", marked(case for case in MIXED if case[2].endswith("-3")))
def test_shards_of_several_number_formats_do_the_steps_of_whole_weights(
    case: Case, trained: Runs
) -> None:
    model, optimizer, _ = case
    whole, sharded = trained((model, optimizer, "2 processes, ZeRO-2")), trained(case)
    np.testing.assert_allclose(sharded.losses[0], whole.losses[0], rtol=1e-6)
    np.testing.assert_allclose(sharded.losses, whole.losses, rtol=5e-3)  # BF16 rounds updates apart


@pytest.mark.parametrize("layout", ["2 processes, ZeRO-2", "2 processes, ZeRO-3"])
def test_plain_peft_loads_what_was_published(
    inputs: Path, layout: str, trained: Runs, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from finetune_trainer.store.artifacts import open_artifact

    result = trained(("llama", "AdamW", layout))
    output = result.directory.parents[1] / "published" / result.directory.name
    artifact = open_artifact(output.as_uri(), None, tmp_path / "artifact")
    base = AutoModelForCausalLM.from_pretrained(inputs / "llama", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(artifact)).eval()
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    row = sums(1)[0]["messages"]
    ids = tokenizer.apply_chat_template(row, return_tensors="pt", return_dict=False)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        with model.disable_adapter():
            untrained = model(input_ids=ids).logits
    expected = result.tensors("logits")["logits"]
    assert_close(logits, expected, terms=TINY_MODEL)
    assert float((untrained - expected).abs().max()) > 0.01  # the adapter does something


# TRL refuses an adapter on the head: it reads the head's weight directly.
@pytest.mark.parametrize("model", [model for model in MODELS if "head" not in model])
@pytest.mark.slow
def test_the_oracle_loses_what_trl_loses(
    model: str, inputs: Path, oracle: Callable[[str, str], Expected], tmp_path: Path
) -> None:
    theirs = trl_losses(config_of(inputs, _first(model, "AdamW")), tmp_path)
    np.testing.assert_allclose(oracle(model, "AdamW").losses, theirs, atol=TRL_TOLERANCE)

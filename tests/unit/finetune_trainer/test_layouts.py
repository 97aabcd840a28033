"""Layout never changes the numbers: processes, micro-batches and ZeRO stage against an oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.tiny_llama import sums, write_model, write_rows
from support.trainer_runs import Trained, run_config, train_group

ROWS = 33  # four batches of 8 and one of a single row: most ranks and passes have nothing in it
TOLERANCE = 1e-5
OPTIMIZERS = {
    "AdamW": {"optimizer": "AdamW", "learningRate": 1e-3, "weightDecay": 0.1},
    "SGD": {"optimizer": "SGD", "learningRate": 0.05, "weightDecay": 0.1},
    "SGD, no clipping": {"optimizer": "SGD", "learningRate": 1e-2, "maxGradNorm": 0},
}
TRAINING = {"epochs": 1, "maxGradNorm": 0.5, "schedule": "Constant", "warmupRatio": 0, "seed": 7}
BF16 = {**TRAINING, **OPTIMIZERS["AdamW"], "precision": "BF16"}
# name -> world size, ZeRO stage, micro-batch size
LAYOUTS = {
    "1 process, accumulation": (1, 3, 2),
    "1 process, DDP, whole batch": (1, 0, 8),
    "2 processes, DDP": (2, 0, 2),
    "2 processes, ZeRO-1": (2, 1, 4),
    "2 processes, ZeRO-2": (2, 2, 2),
    "2 processes, ZeRO-3": (2, 3, 2),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_model(directory / "model")
    write_rows(directory / "train.jsonl", sums(ROWS))
    return directory


@pytest.fixture(scope="module")
def trained(
    inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Trained]:
    found: dict[tuple[str, str], Trained] = {}
    for world in (1, 2):
        directory = tmp_path_factory.mktemp(f"world-{world}")
        cases, names = {}, {}
        for optimizer, settings in {**OPTIMIZERS, "BF16": BF16}.items():
            for layout, (size, stage, micro) in LAYOUTS.items():
                if size == world:
                    case = f"{len(cases)}"
                    names[case] = (optimizer, layout)
                    cases[case] = run_config(
                        inputs,
                        output=(directory / "published" / case).as_uri(),
                        training={**TRAINING, **settings},
                        processesPerWorker=world,
                        zeroStage=stage,
                        microBatchSize=micro,
                    )
        for case, result in train_group(world, cases, directory / "group").items():
            found[names[case]] = result
    return found


@pytest.fixture(scope="module", params=list(OPTIMIZERS))
def oracle(request: pytest.FixtureRequest, inputs: Path) -> tuple[str, dict[str, Any]]:
    return request.param, plain_torch(inputs, OPTIMIZERS[request.param])


def plain_torch(inputs: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Train without DeepSpeed or any of the project's code, one row at a time."""
    import json

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    model = AutoModelForCausalLM.from_pretrained(inputs / "model", dtype=torch.float32)
    torch.manual_seed(TRAINING["seed"])
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets)
    )
    rows = [json.loads(line)["messages"] for line in (inputs / "train.jsonl").open()]
    order = np.random.default_rng([TRAINING["seed"], 0]).permutation(ROWS)
    parameters = [p for p in model.parameters() if p.requires_grad]
    kind = {"AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}[settings["optimizer"]]
    decay = settings.get("weightDecay", 0.0)
    optimizer = kind(parameters, lr=settings["learningRate"], weight_decay=decay)
    limit = {**TRAINING, **settings}["maxGradNorm"] or float("inf")
    losses, norms = [], []
    for start in range(0, ROWS, 8):
        summed, count = torch.zeros(()), 0
        for index in order[start : start + 8]:
            question, answer = (turn["content"] for turn in rows[index])
            head = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            prompt = tokenizer(head)["input_ids"]
            ids = torch.tensor([*prompt, *tokenizer(f"{answer}<|im_end|>")["input_ids"]])
            log_probs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            picked = log_probs[len(prompt) - 1 : -1].gather(1, ids[len(prompt) :, None])
            summed, count = summed - picked.sum(), count + len(picked)
        optimizer.zero_grad()
        (summed / count).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, limit)))
        optimizer.step()
        losses.append(float(summed / count))
    adapter = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    return {"losses": losses, "norms": norms, "adapter": adapter}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_layout_does_the_oracles_steps(
    oracle: tuple[str, dict[str, Any]], layout: str, trained: dict[tuple[str, str], Trained]
) -> None:
    optimizer, expected = oracle
    result = trained[optimizer, layout]
    assert min(expected["norms"]) > TRAINING["maxGradNorm"]  # clipping, where there is any, bites
    np.testing.assert_allclose(result.losses, expected["losses"], atol=TOLERANCE)
    np.testing.assert_allclose(result.norms, expected["norms"], rtol=TOLERANCE)
    adapter = result.tensors("adapter")
    assert adapter.keys() == expected["adapter"].keys()
    for name, tensor in expected["adapter"].items():
        np.testing.assert_allclose(adapter[name], tensor, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_bf16_rounds_the_base_only(layout: str, trained: dict[tuple[str, str], Trained]) -> None:
    import torch

    rounded, exact = trained["BF16", layout], trained["AdamW", layout]
    np.testing.assert_allclose(rounded.losses, exact.losses, rtol=0.02)
    assert rounded.losses != exact.losses
    assert {tensor.dtype for tensor in rounded.tensors("adapter").values()} == {torch.float32}


@pytest.mark.parametrize("layout", ["2 processes, ZeRO-2", "2 processes, ZeRO-3"])
def test_plain_peft_loads_what_was_published(
    inputs: Path, layout: str, trained: dict[tuple[str, str], Trained], tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from finetune_trainer.artifacts import open_artifact

    result = trained["AdamW", layout]
    output = result.directory.parents[1] / "published" / result.directory.name
    artifact = open_artifact(output.as_uri(), None, tmp_path / "artifact")
    base = AutoModelForCausalLM.from_pretrained(inputs / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(artifact)).eval()
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    row = sums(1)[0]["messages"]
    ids = tokenizer.apply_chat_template(row, return_tensors="pt", return_dict=False)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        with model.disable_adapter():
            untrained = model(input_ids=ids).logits
    expected = result.tensors("logits")["logits"]
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
    assert float((untrained - expected).abs().max()) > 0.01  # the adapter does something

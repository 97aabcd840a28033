"""Supervised tokens a second: packed, padded and length-grouped micro-batches of the same rows.

Lengths are lognormal (sigma 1), as of real dialogues; micro-batches of 8 rows; LoRA on a random 5M
Llama in fp32 on the CPU. *Padded* takes rows as they come and pads them to the longest of 8;
*grouped* sorts 64 rows by length first, as length-grouped samplers do; *packed* is what the trainer
does. Rounds alternate, medians count.

    python benchmarks/packing.py [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from finetune_contract.recipe import LoraRecipe, Precision
from finetune_trainer.adapter.lora import adapt
from finetune_trainer.adapter.roles import map_roles
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.model.base import load_model
from finetune_trainer.step.log_probs import LogProbModel, score
from harness.command_line import command_line, save
from support.models.tiny_llama import write_model

MICRO_BATCH, ROWS = 8, 64
MEDIAN, SIGMA, LONGEST = 64, 1.0, 1024  # tokens
LEARNED = 0.5  # of a row's tokens, its end
BAR = 1.8
SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": LONGEST,
}


def draw_rows() -> list[EncodedRow]:
    """Return rows in random order."""
    draw = np.random.default_rng(0)
    lengths = np.clip(MEDIAN * draw.lognormal(0, SIGMA, ROWS), 8, LONGEST).astype(int)
    return [
        EncodedRow(
            draw.integers(3, SHAPE["vocab_size"], n).astype(np.int32),
            np.arange(n) >= n - int(LEARNED * n),
        )
        for n in lengths
    ]


def layouts(rows: list[EncodedRow]) -> dict[str, list[MicroBatch]]:
    """Return the micro-batches of each contender; all learn the same tokens."""
    cpu = torch.device("cpu")
    by_length = sorted(rows, key=lambda row: -len(row.tokens))

    def batches(order: list[EncodedRow], *, packed: bool) -> list[MicroBatch]:
        starts = range(0, len(order), MICRO_BATCH)
        return [MicroBatch.of(order[i : i + MICRO_BATCH], cpu, packed=packed) for i in starts]

    return {
        "packed": batches(by_length, packed=True),
        "padded": batches(rows, packed=False),
        "grouped": batches(by_length, packed=False),
    }


def one_round(scorer: LogProbModel, batches: list[MicroBatch]) -> float:
    """Return the seconds of forward and backward passes over all micro-batches."""
    scorer.zero_grad()
    started = time.perf_counter()
    for batch in batches:
        (-score(scorer, batch).sum()).backward()
    return time.perf_counter() - started


def measure(rounds: int) -> dict[str, Any]:
    """Return tokens a second and their ratios to the packed ones."""
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), **SHAPE)
        base = load_model(Path(directory), Precision.FP32)
    model = adapt(base, LoraRecipe(), map_roles(base), seed=0).model
    scorer = LogProbModel(model, checkpointing=False).train()
    rows = draw_rows()
    contenders = layouts(rows)
    supervised = sum(int(row.learned.sum()) for row in rows)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for batches in contenders.values():
        one_round(scorer, batches[-1:])  # warm
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(one_round(scorer, contenders[name]))
    rates = {name: supervised / statistics.median(values) for name, values in seconds.items()}
    return {
        "supervisedTokensPerSecond": rates,
        "paddedTokens": {name: _positions(b) for name, b in contenders.items()},
        "overPadded": rates["packed"] / rates["padded"],
        "overGrouped": rates["packed"] / rates["grouped"],
        "bar": BAR,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
    }


def _positions(batches: list[MicroBatch]) -> int:
    return sum(batch.input_ids.numel() for batch in batches)


def main() -> None:
    arguments = command_line(__doc__, rounds=5).parse_args()
    disable_progress_bar()
    set_verbosity_error()
    found = measure(arguments.rounds)
    print("| | supervised tokens/s | positions |\n|---|---|---|")
    for name, rate in found["supervisedTokensPerSecond"].items():
        print(f"| {name} | {rate:.0f} | {found['paddedTokens'][name]} |")
    print(
        f"\npacked over padded {found['overPadded']:.2f} (bar: at least {BAR}), "
        f"over grouped {found['overGrouped']:.2f}"
    )
    save(found, arguments.json)


if __name__ == "__main__":
    main()

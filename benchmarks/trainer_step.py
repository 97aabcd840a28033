"""Time and memory of one optimizer step: this trainer against plain TRL SFTTrainer.

One process each, the same settings: fp32, LoRA on a random 28M Llama, batches of 8 rows without
accumulation. Rounds alternate, so that whatever else the machine does falls on both; medians of all
steps count. Memory is the highest resident set of a round, the libraries' share in it.

    python benchmarks/trainer_step.py [--rounds 5] [--steps 8] [--json FILE]
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from datasets import Dataset as TrlDataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error
from trl import SFTTrainer

from finetune_contract.checkpoint import TrainingState
from finetune_contract.runconfig import RunConfig
from finetune_trainer.methods.sft.feed import SupervisedFeed
from harness.command_line import command_line, save
from harness.contest import StepTimer, serve, take_turns
from harness.one_process import LLAMA_28M, ready
from support.models.tiny_llama import write_model, write_rows
from support.trainer.oracle import plain_sft_config
from support.trainer.runs import run_config

BATCH, RANK, ALPHA, RATE, LENGTH = 8, 16, 32, 2e-4, 256
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WARM_UP = 2  # first steps of a round, not counted
TIME_BAR, MEMORY_BAR = 1.0, 1.05


def rows(count: int) -> list[dict[str, Any]]:
    """Return conversations of 60 to 200 tokens; about a third of each is the answer."""
    draw = random.Random(0)
    return [
        {
            "prompt": [{"role": "user", "content": "q" * draw.randint(20, 90)}],
            "completion": [{"role": "assistant", "content": "a" * draw.randint(10, 60)}],
        }
        for _ in range(count)
    ]


def ours(config: RunConfig) -> Callable[[], list[float]]:
    """Return a function that trains one round and returns the seconds of its steps."""
    trainer = ready(config, ExitStack())
    engine, feed = trainer.engine, SupervisedFeed(trainer.run, trainer.data.train)

    def one_round() -> list[float]:
        seconds = []
        for step in range(feed.steps):
            state = TrainingState(step=step, supervised_tokens=0, loss=0.0)
            started = time.monotonic()
            batch = feed.batch(state, lambda: False)
            engine.step(batch.micro_batches, batch.normaliser, RATE, lambda: False)
            seconds.append(time.monotonic() - started)
        return seconds

    return one_round


def trl(
    model: Path, data: list[dict[str, Any]], steps: int, out: Path
) -> Callable[[], list[float]]:
    """Return a function that trains one round with SFTTrainer."""
    from peft import LoraConfig

    timer = StepTimer()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=plain_sft_config(
            out,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            max_length=LENGTH,
            max_grad_norm=1.0,
            completion_only_loss=True,
            padding_free=False,
            logging_strategy="no",
        ),
        train_dataset=TrlDataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS
        ),
        callbacks=[timer],
    )

    def one_round() -> list[float]:
        trainer.train()
        return timer.seconds

    return one_round


def contend(name: str, pipe: Connection, directory: Path, steps: int) -> None:
    """Be one contender."""
    disable_progress_bar()
    set_verbosity_error()
    model, data = directory / "model", rows(BATCH * steps)
    if name == "trl":
        one_round = trl(model, data, steps, directory / "trl")
    else:
        config = run_config(
            directory,
            data=write_rows(directory / "train.jsonl", data),
            lora={"rank": RANK, "alpha": ALPHA},
            training={"maxSteps": steps, "learningRate": RATE, "globalBatchSize": BATCH},
            microBatchSize=BATCH,
        )
        one_round = ours(config)
    serve(pipe, lambda: one_round()[WARM_UP:])


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Return the medians, their ratios and every step's seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        (directory / "scratch").mkdir()
        write_model(directory / "model", **LLAMA_28M)
        turns = take_turns(contend, ("trainer", "trl"), rounds, directory, steps)
    seconds = {name: list(chain.from_iterable(turn.answers)) for name, turn in turns.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    memory = {name: statistics.median(turn.peaks) for name, turn in turns.items()}
    return {
        "medianSeconds": medians,
        "ratio": medians["trainer"] / medians["trl"],
        "bar": TIME_BAR,
        "peakBytes": memory,
        "memoryRatio": memory["trainer"] / memory["trl"],
        "memoryBar": MEMORY_BAR,
        "threads": {name: turn.threads for name, turn in turns.items()},
        "seconds": seconds,
    }


def main() -> None:
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.steps)
    print("| | median step | steps | peak memory |\n|---|---|---|---|")
    for name, median in found["medianSeconds"].items():
        peak = found["peakBytes"][name] / 2**20
        steps = len(found["seconds"][name])
        print(f"| {name} | {median * 1000:.0f} ms | {steps} | {peak:.0f} MiB |")
    print(
        f"\ntime {found['ratio']:.3f} (bar: at most {TIME_BAR}), "
        f"memory {found['memoryRatio']:.3f} (bar: at most {MEMORY_BAR})"
    )
    save(found, arguments.json)


if __name__ == "__main__":
    main()

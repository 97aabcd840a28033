"""What a checkpoint costs the training: the same steps with and without one, one process, fp32.

LoRA of rank 64 on a random 28M Llama; a checkpoint holds weights and both moments of Adam. Rounds
alternate, so that whatever else the machine does falls on both. A checkpoint's cost is the
difference of the medians, over the checkpoints of a round, against a minute between checkpoints.

    python benchmarks/checkpointing.py [--rounds 5] [--steps 12] [--json FILE]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from finetune_contract.layout import CheckpointPolicy, JobRef
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.course.telemetry import StepRecord
from finetune_trainer.lead import Lead
from finetune_trainer.methods.sft.feed import SupervisedFeed
from finetune_trainer.train import train
from harness.command_line import command_line, save
from harness.one_process import LLAMA_28M, Ready, ready
from support.models.tiny_llama import dialogue, write_model, write_rows
from support.trainer.runs import run_config

EVERY = 4  # steps between checkpoints
BAR = 0.03  # of a minute


class Marks(Reporter):
    """Keeps when each step was finished, what lies between steps included."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def trained(self, record: StepRecord) -> None:
        self.times.append(time.monotonic())


def write_inputs(directory: Path, steps: int) -> None:
    (directory / "scratch").mkdir()
    write_model(directory / "model", **LLAMA_28M)
    write_rows(
        directory / "train.jsonl",
        [dialogue(f"{i} ?" + "q" * (i % 30), "a" * (10 + i % 30)) for i in range(4 * steps)],
    )


def recipe(directory: Path, steps: int) -> RunConfig:
    return run_config(
        directory,
        lora={"rank": 64, "alpha": 64},
        training={"maxSteps": steps, "globalBatchSize": 4},
        microBatchSize=4,
    )


def one_round(trainer: Ready, uid: str, every_steps: int) -> float:
    """Train as a job of its own; return the seconds from the first step's end to the last's."""
    job = JobRef(name="bench", namespace="bench", uid=uid)
    checkpoint = CheckpointPolicy(every_steps=every_steps, every_minutes=None)
    plain = trainer.run.config
    layout = plain.layout.model_copy(update={"job": job, "checkpoint": checkpoint})
    config, marks = plain.model_copy(update={"layout": layout}), Marks()
    run = replace(trainer.run, config=config, reporter=marks)
    lead = run.ranks.hold(lambda: Lead(config, marks, trainer.start, {}))
    train(run, trainer.engine, trainer.data, SupervisedFeed(run, trainer.data.train), lead)
    return marks.times[-1] - marks.times[0]


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Return the seconds of every round, and what follows from them."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        write_inputs(directory, steps)
        trainer = ready(recipe(directory, steps), ExitStack())
        for number in range(rounds + 1):
            for saves in (True, False) if number % 2 else (False, True):
                every = EVERY if saves else 10 * steps
                spent = one_round(trainer, f"{number}-{saves}", every)
                if number:  # the first round warms up
                    seconds[saves].append(spent)
        state = next((directory / "out").rglob("state.safetensors")).stat().st_size
        trainer.run.ranks.wait()
    checkpoints = (steps - 1) // EVERY
    medians = {saves: statistics.median(values) for saves, values in seconds.items()}
    cost = (medians[True] - medians[False]) / checkpoints
    return {
        "secondsWith": seconds[True],
        "secondsWithout": seconds[False],
        "checkpointsInARound": checkpoints,
        "megabytes": state / 1e6,
        "secondsPerCheckpoint": cost,
        "shareOfAMinute": cost / 60,
        "bar": BAR,
    }


def main() -> None:
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.steps)
    for name in ("With", "Without"):
        values = found[f"seconds{name}"]
        print(
            f"{name.lower():8} {statistics.median(values):.3f} s a round, median of {len(values)}"
        )
    print(
        f"a checkpoint of {found['megabytes']:.1f} MB costs {found['secondsPerCheckpoint']:.3f} s, "
        f"{found['shareOfAMinute']:.2%} of a minute (bar: at most {BAR:.0%})"
    )
    save(found, arguments.json)


if __name__ == "__main__":
    main()

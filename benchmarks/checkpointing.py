"""What a checkpoint costs the training: the same steps with and without one, one process, fp32.

LoRA of rank 64 on a random 28M Llama; a checkpoint holds weights and both moments of Adam. Rounds
alternate, so that whatever else the machine does falls on both. A checkpoint's cost is the
difference of the medians, over the checkpoints of a round, against a minute between checkpoints.

    python benchmarks/checkpointing.py [--rounds 5] [--steps 12] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from finetune_contract.runconfig import RunConfig
from finetune_trainer.distributed import Ranks
from finetune_trainer.lead import Lead, fetch
from finetune_trainer.prepare import prepare
from finetune_trainer.progress import Reporter
from finetune_trainer.resolve import resolve
from finetune_trainer.stopping import Stop
from finetune_trainer.telemetry import StepRecord
from finetune_trainer.train import load, train
from support.tiny_llama import dialogue, write_model, write_rows
from support.trainer_runs import run_config

SHAPE = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
EVERY = 4  # steps between checkpoints
BAR = 0.03  # of a minute


class Marks(Reporter):
    """Keeps when each step was finished, what lies between steps included."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def trained(self, record: StepRecord) -> None:
        self.times.append(time.monotonic())


def alone() -> Ranks:
    """Return a group of this process alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"})
    os.environ.update({"RANK": "0", "WORLD_SIZE": "1"})
    ranks = Ranks.meet()
    ranks.join()
    return ranks


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Return the seconds of every round, and what follows from them."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        (directory / "scratch").mkdir()
        write_model(directory / "model", **SHAPE)
        write_rows(
            directory / "train.jsonl",
            [dialogue(f"{i} ?" + "q" * (i % 30), "a" * (10 + i % 30)) for i in range(4 * steps)],
        )

        def config(saves: bool, uid: str) -> RunConfig:
            return run_config(
                directory,
                lora={"rank": 64, "alpha": 64},
                training={"maxSteps": steps, "globalBatchSize": 4},
                microBatchSize=4,
                job={"name": "bench", "namespace": "bench", "uid": uid},
                checkpoint={"everySteps": EVERY if saves else 10 * steps, "everyMinutes": None},
            )

        ranks, reporter = alone(), Marks()
        plain = config(False, "first")
        start = Lead(plain, reporter).start()
        files = fetch(plain, start.model, reporter, weights=False)
        resolved, plan = resolve(plain, start.model, files, ranks)
        reporter.planned(plan)
        data = prepare(resolved, start.files, files, ranks, reporter)
        engine, _ = load(resolved, start.model, ranks, reporter)
        for number in range(rounds + 1):
            for saves in (True, False) if number % 2 else (False, True):
                job, marks = config(saves, f"{number}-{saves}"), Marks()
                layout = resolved.layout.model_copy(
                    update={"job": job.layout.job, "checkpoint": job.layout.checkpoint}
                )
                run = resolved.model_copy(update={"layout": layout})
                lead = Lead(run, marks)
                lead.start()
                train(run, engine, data, lead, ranks, marks, Stop(60, lambda: None))
                if number:  # the first round warms up
                    seconds[saves].append(marks.times[-1] - marks.times[0])
        state = next((directory / "out").rglob("state.safetensors")).stat().st_size
        ranks.wait()
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path)
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
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

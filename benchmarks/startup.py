"""From `python -m finetune_trainer.launch` to the end of the first optimizer step.

A random Llama of 2 layers on local files, one process, modules compiled (.pyc) by a first run that
is not counted: what is left is the start itself. Where the time goes is read off the rank's log.

    python benchmarks/startup.py [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.command_line import command_line, save
from support.models.tiny_llama import sums, write_model, write_rows
from support.trainer.runs import run_config

BAR = 10.0  # seconds
STAGES = {  # up to the first line of the log that holds the words
    "processes and imports": "attempt 1: 1 workers",
    "inputs, memory, data": "phase Load",
    "model and engine": "phase Train",
    "first step": "step 1/",
}
STAMP = "%Y-%m-%d %H:%M:%S,%f"


def start_once(directory: Path, number: int) -> dict[str, float]:
    """Run a job of one step; return seconds per stage, `in all`, and its CPU seconds."""
    run = directory / f"run-{number}"
    config = run_config(
        run,
        model=directory / "model",
        data=directory / "train.jsonl",
        training={"maxSteps": 1},
    )
    Path(config.layout.scratch_dir).mkdir(parents=True)
    (run / "runconfig.json").write_text(config.to_json())
    command = [sys.executable, "-m", "finetune_trainer.launch"]
    command += ["--run-config", str(run / "runconfig.json")]
    command += ["--termination-log", str(run / "termination-log")]
    spent, began = _cpu_seconds(), time.time()
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    times = {"CPU, to the end of the job": _cpu_seconds() - spent}
    before = began
    for stage, words in STAGES.items():
        reached = _stamp(ended.stderr, words)
        times[stage], before = reached - before, reached
    times["in all"] = before - began
    return times


def _stamp(log: str, words: str) -> float:
    [line, *_] = [line for line in log.splitlines() if words in line]
    match = re.match(r"\S+ \S+", line)
    assert match is not None
    return datetime.strptime(match[0], STAMP).timestamp()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    arguments = command_line(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_model(directory / "model")
        write_rows(directory / "train.jsonl", sums(64))
        start_once(directory, 0)  # compiles
        rounds = [start_once(directory, number + 1) for number in range(arguments.rounds)]
    medians = {stage: statistics.median(times[stage] for times in rounds) for stage in rounds[0]}
    for stage, seconds in medians.items():
        print(f"{stage:28} {seconds:6.2f} s")
    print(f"bar: {BAR:.0f} s to the first step, {'met' if medians['in all'] <= BAR else 'missed'}")
    save(medians, arguments.json)


if __name__ == "__main__":
    main()

"""Ranks as forks of one process that has imported what takes seconds to import.

As a program, that process: it obeys JSON lines on its standard input and runs nothing of torch
itself, so that every fork begins without threads. A rank is the product's own entry point, to which
a `Fault` may happen that is put around the product's functions in the fork; or a function of the
tests, in a process group.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune_contract.result import Result, decode
from finetune_contract.runconfig import RunConfig
from support.trainer.runs import PYTHONPATH, rank_environments

SECONDS = 600.0  # after which a rank that has not ended is called hung
SLOW_SECONDS = 0.7  # longer than ranks that have their scores wait before they ask the others


@dataclass(frozen=True)
class Fault:
    """A signal that ranks send themselves, or with number 0 a store that never answers again.

    At "train" it comes before a micro-batch (from 0) of `step` (from 1), once the checkpoints of
    earlier steps are written; at "rollout", "evaluate", "checkpoint" and "publish" when that begins
    after `step` steps; at "score" no answer ever comes then. At "slow score" all answers come late,
    and at "refused checkpoint" every one is refused; nothing else happens.
    """

    number: int
    step: int
    ranks: tuple[int, ...]
    micro_batch: int = 0
    at: str = "train"


@dataclass(frozen=True)
class Ended:
    """How a rank ended, and what it logged."""

    code: int
    result: Result | None
    log: str


class ForkServer:
    """Starts ranks in milliseconds."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OMP_WAIT_POLICY": "PASSIVE",
                "PYTHONPATH": PYTHONPATH,
            },
        )

    def close(self) -> None:
        """End the server; its ranks have ended before."""
        self._process.communicate()

    def start(
        self, config: RunConfig, directory: Path, fault: Fault | None = None, **environment: str
    ) -> list[int]:
        """Start the ranks of a RunConfig and return their process ids."""
        directory.mkdir(parents=True)
        Path(config.layout.scratch_dir).mkdir(parents=True, exist_ok=True)
        (directory / "runconfig.json").write_text(config.to_json())
        return [
            self._ask(
                environment={**environment, **found_by},
                directory=str(directory),
                fault=asdict(fault) if fault and rank in fault.ranks else None,
            )
            for rank, found_by in enumerate(rank_environments(config.layout.world_size))
        ]

    def wait(self, pids: Sequence[int], directory: Path) -> list[Ended]:
        """Wait for the ranks to end."""
        ended = []
        for rank, pid in enumerate(pids):
            code = self._ask(wait=pid)
            result = directory / f"rank-{rank}.json"
            ended.append(
                Ended(
                    code,
                    decode(result.read_text()) if result.exists() else None,
                    (directory / f"log-{rank}").read_text(),
                )
            )
        assert not [end for end in ended if end.code is None], "a rank hung"
        return ended

    def run(
        self, config: RunConfig, directory: Path, fault: Fault | None = None, **environment: str
    ) -> list[Ended]:
        """Run the ranks of a RunConfig to their end."""
        return self.wait(self.start(config, directory, fault, **environment), directory)

    def call(self, function: Callable[[Any, Path], None], world: int, directory: Path) -> None:
        """Call a module's function on each rank of a new group, with its `Ranks` and a directory.

        Raises AssertionError if it does not return on all of them.
        """
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{function.__module__}:{function.__name__}"
        pids = [
            self._ask(environment=found_by, directory=str(directory), function=name)
            for found_by in rank_environments(world)
        ]
        ended = self.wait(pids, directory)
        assert [end.code for end in ended] == [0] * world, "\n".join(end.log for end in ended)

    def _ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    _import_everything()
    assert len(os.listdir("/proc/self/task")) == 1, "forks would lack the other threads"
    gc.freeze()  # DeepSpeed collects garbage often, and would look at all that was imported
    for line in sys.stdin:
        order = json.loads(line)
        answer = _wait(order["wait"]) if "wait" in order else _fork(order)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _import_everything() -> None:
    import transformers
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import finetune_trainer.rank
    import finetune_trainer.train

    for name in ("llama", "qwen3_moe", "deepseek_v3"):
        __import__(f"{transformers.__name__}.models.{name}.modeling_{name}")
    get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns, for all models
    assert finetune_trainer.rank
    assert finetune_trainer.train


def _fork(order: Mapping[str, Any]) -> int:
    directory, rank = order["directory"], order["environment"]["RANK"]
    log = os.open(f"{directory}/log-{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    pid = os.fork()
    if pid:
        os.close(log)
        return pid
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environment"])
    code = 1
    try:
        if "function" in order:
            code = _call(order["function"], Path(directory))
        else:
            code = _train(directory, order["fault"])
    except BaseException:  # noqa: BLE001 - nothing may go on as the server
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _call(name: str, directory: Path) -> int:
    from finetune_trainer.process.distributed import Ranks

    module, _, function = name.partition(":")
    ranks = Ranks.meet()
    ranks.join()
    getattr(importlib.import_module(module), function)(ranks, directory)
    ranks.wait()
    return 0


def _train(directory: str, fault: Mapping[str, Any] | None) -> int:
    from finetune_trainer import __main__

    sys.argv = ["finetune_trainer", "--run-config", f"{directory}/runconfig.json"]
    sys.argv += ["--result-dir", directory]
    if fault is not None:
        _plant(Fault(**fault))
    return __main__.main()


def _wait(pid: int) -> int | None:
    """Return the exit code, negative for a signal; None if it had to be killed."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _plant(fault: Fault) -> None:
    from finetune_trainer.checkpoints.keeper import Checkpoints
    from finetune_trainer.lead import Lead
    from finetune_trainer.rollout.builtin import BuiltinEngine
    from finetune_trainer.step.evaluate import Evaluator

    def strike(reached: int) -> None:
        if fault.number and reached == fault.step:
            os.kill(os.getpid(), fault.number)
        if not fault.number and reached >= fault.step:
            time.sleep(2 * SECONDS)

    if fault.at in ("train", "rollout", "score"):
        _settle_saves()
    match fault.at:
        case "train":
            _plant_in_step(fault)
        case "rollout":
            _before(BuiltinEngine, "draw", lambda requests, step, stops, done: strike(step))
        case "score" | "slow score":
            _plant_in_score(fault)
        case "evaluate":
            _before(Evaluator, "evaluate", lambda state, stops: strike(state.step))
        case "checkpoint":
            _before(Checkpoints, "_upload", lambda snapshot, base: strike(snapshot.state.step))
        case "refused checkpoint":
            _before(Checkpoints, "_upload", _refuse)
        case "publish":
            _before(Lead, "publish", lambda model, summary, skipped: strike(summary.steps))


def _refuse(*_: Any) -> None:
    raise PermissionError(errno.EACCES, "the store refuses")


def _before(owner: Any, name: str, act: Callable[..., None]) -> None:
    original = getattr(owner, name)

    def acting(self: Any, *arguments: Any) -> Any:
        act(*arguments)
        return original(self, *arguments)

    setattr(owner, name, acting)


def _plant_in_score(fault: Fault) -> None:
    import asyncio

    from finetune_rewards.panel import Panel

    original = Panel._elsewhere

    async def silent(self: Panel, samples: Any, *arguments: Any) -> Any:
        if fault.at == "slow score":
            await asyncio.sleep(SLOW_SECONDS)
        elif samples.step == fault.step:
            os.kill(os.getpid(), fault.number)
            await asyncio.sleep(2 * SECONDS)
        return await original(self, samples, *arguments)

    Panel._elsewhere = silent  # type: ignore[method-assign]


def _plant_in_step(fault: Fault) -> None:
    from finetune_trainer import loop

    seed_step, step = loop.seed_step, loop.Engine.step
    under_way = 0

    def noting(seed: int, step: int, rank: int) -> None:
        nonlocal under_way
        under_way = step + 1
        seed_step(seed, step, rank)

    def striking(self: Any, batches: Any, tokens: Any, rate: Any, stops: Any) -> Any:
        asked = 0

        def asking() -> bool:
            nonlocal asked
            if (under_way, asked) == (fault.step, fault.micro_batch):
                os.kill(os.getpid(), fault.number)
            asked += 1
            return bool(stops())

        return step(self, batches, tokens, rate, asking)

    loop.seed_step = noting
    loop.Engine.step = striking  # type: ignore[method-assign]


def _settle_saves() -> None:
    """Let a snapshot be stored before the run goes on: what a later kill finds is then known."""
    from finetune_trainer.checkpoints.keeper import Checkpoints

    save = Checkpoints.save

    def settling(self: Any, snapshot: Any) -> None:
        save(self, snapshot)
        self.wait()

    Checkpoints.save = settling  # type: ignore[method-assign]


if __name__ == "__main__":
    _serve()

"""A job's attempts, killed one after the other, and where each must go on.

Their inputs lie in one directory: a model by the name of its kind, rows, prompts, and the socket
of a runner of rewards.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.runconfig import RunConfig
from support.grpo.configs import grpo_config
from support.storage.publications import run_directory
from support.trainer.fork_server import Ended, Fault, ForkServer
from support.trainer.runs import run_config

STEPS = 12
EVERY = 2  # steps between checkpoints
KILL, TERM = signal.SIGKILL, signal.SIGTERM
PROMPTS = "prompts.jsonl"
SOCKET = "rewards.sock"


@dataclass(frozen=True)
class Setting:
    """What is trained, and how it is laid out."""

    model: str = "llama"
    stage: int = 2
    dropout: float = 0.1
    world: int = 2
    batch: int = 8
    optimizer: str = "AdamW"
    offload: tuple[str, ...] = ()
    iterations: int = 0  # of GRPO; 0: SFT
    beta: float = 0.0
    resamples: int = 0

    def config(self, inputs: Path, output: Path, attempt: int) -> RunConfig:
        targets = ["Attention"]
        if self.model != "qwen3-moe":
            targets.append("MLP")
        if self.model == "deepseek-v3":
            targets.append("SharedExperts")
        if self.model != "llama" and not self.dropout:
            targets.append("Experts")
        method: dict[str, Any] = {}
        make = run_config
        if self.iterations:
            make = grpo_config
            grpo = {"iterations": self.iterations, "beta": self.beta}
            method = {
                "grpo": {**grpo, "maxResamples": self.resamples},
                "data": inputs / PROMPTS,
                "socket": inputs / SOCKET,
            }
        return make(
            inputs,
            **method,
            model=inputs / self.model,
            output=output.as_uri(),
            lora={"dropout": self.dropout, "targets": targets},
            training={
                "maxSteps": STEPS,
                "globalBatchSize": self.batch,
                "learningRate": 5e-3,
                "optimizer": self.optimizer,
            },
            attempt=attempt,
            processesPerWorker=self.world,
            microBatchSize=2,
            zeroStage=self.stage,
            offload=list(self.offload),
            checkpoint={"everySteps": EVERY, "everyMinutes": None},
            scratchDir=str(output / "scratch"),
        )


class Runs:
    """Attempts at jobs, each job in a directory of its own."""

    def __init__(self, server: ForkServer, directory: Path) -> None:
        self._server = server
        self._directory = directory
        self._whole: dict[Setting, Path] = {}
        self._jobs = 0

    def job(self) -> Path:
        self._jobs += 1
        return self._directory / f"job-{self._jobs}"

    def attempt(
        self, setting: Setting, job: Path, number: int, fault: Fault | None = None
    ) -> list[Ended]:
        config = setting.config(self._directory, job, number)
        return self._server.run(config, job / f"attempt-{number}", fault)

    def whole(self, setting: Setting) -> Path:
        """Return the adapter of a run that nothing happened to."""
        if setting not in self._whole:
            job = self.job()
            self._whole[setting] = finished(self.attempt(setting, job, 1), job, 1)
        return self._whole[setting]


def finished(ends: list[Ended], job: Path, attempt: int) -> Path:
    assert [end.code for end in ends] == [0] * len(ends), ends[0].log
    return run_directory(job, attempt) / "artifact/adapter_model.safetensors"


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def began_at(ends: list[Ended]) -> int:
    lines = [line for line in ends[0].log.splitlines() if " starts at step " in line]
    assert len(lines) == 1, ends[0].log
    return int(lines[0].split()[-3])


def killed_and_resumed(runs: Runs, setting: Setting, faults: list[Fault]) -> None:
    """Kill an attempt after the other; each begins where the one before could be saved."""
    job, saved = runs.job(), 0
    for number, fault in enumerate(faults, start=1):
        ends = runs.attempt(setting, job, number, fault)
        assert began_at(ends) == saved
        if fault.at in ("rollout", "score"):
            fault = replace(fault, step=fault.step + 1)  # drawn for the next one
        if fault.number == TERM:
            for end in ends:
                assert end.code == exit_code(Reason.INTERRUPTED), end.log
                assert end.result is not None
                assert end.result.checkpoint is not None or end.result.step == 0
            assert ends[0].result is not None
            saved = ends[0].result.step or 0
            assert fault.step - 1 <= saved <= STEPS  # the step may end before the flag is seen
        else:
            assert [ends[rank].code for rank in fault.ranks] == [-KILL] * len(fault.ranks)
            assert ends[0].code in (-KILL, exit_code(Reason.DISTRIBUTED_FAILURE))
            saved = max(saved, EVERY * ((fault.step - 1) // EVERY))
    last = len(faults) + 1
    ends = runs.attempt(setting, job, last)
    assert began_at(ends) == saved
    assert digest(finished(ends, job, last)) == digest(runs.whole(setting))

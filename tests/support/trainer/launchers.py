"""Launchers at work, as the pods of an attempt start them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import psutil

from finetune_contract.reasons import exit_code
from finetune_contract.result import Result, decode
from finetune_contract.runconfig import RunConfig
from support.services.loopback import free_port

ENDLESS = {"maxSteps": 100_000, "schedule": "Constant"}  # a training that only a test ends
_TRAINING = re.compile(rb"step [1-9]")


class Pod:
    """A launcher at work."""

    def __init__(self, config: RunConfig | str, directory: Path, **environment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        text = config if isinstance(config, str) else config.to_json()
        (directory / "runconfig.json").write_text(text)
        self._termination_log = directory / "termination-log"
        self.progress_file = directory / "progress.json"
        self._log = directory / "log"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "finetune_trainer.launch"),
                *("--run-config", str(directory / "runconfig.json")),
                *("--termination-log", str(self._termination_log)),
                *("--progress-file", str(self.progress_file)),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=self._log.open("wb"),
            stderr=subprocess.STDOUT,
        )

    def wait_until_training(self) -> None:
        while not _TRAINING.search(self._log.read_bytes()):
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.1)

    def ranks(self) -> dict[int, psutil.Process]:
        """Return the processes of the ranks."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return {
            int(child.environ()["RANK"]): child
            for child in children
            if "RANK" in child.environ() and "--result-dir" in child.cmdline()
        }

    @property
    def log(self) -> str:
        """Return what the pod has logged."""
        return self._log.read_text()

    def result(self) -> Result:
        """Wait for the end and return what the pod left."""
        code = self.process.wait()
        result = decode(self._termination_log.read_text())
        assert result is not None
        assert code == exit_code(result.reason), self._log.read_text()
        return result


@contextmanager
def pods(
    *configs: RunConfig, directory: Path, last: Mapping[str, str] = MappingProxyType({})
) -> Iterator[list[Pod]]:
    """Start one launcher per node, in the environment that Kubeflow gives, and the last in more."""
    world = str(configs[0].layout.world_size)
    nodes = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": world,
        "PET_NNODES": str(len(configs)),
        "PET_NPROC_PER_NODE": "auto",
        "PET_MASTER_PORT": "1",
    }
    started = []
    for rank, config in enumerate(configs):
        own = {"RANK": str(rank), "PET_NODE_RANK": str(rank)}
        more = last if rank == len(configs) - 1 else {}
        started.append(Pod(config, directory / f"node-{rank}", **nodes, **own, **more))
    try:
        yield started
    finally:
        for pod in started:
            pod.process.kill()

"""The pod's entry: start this node's ranks under torchrun, pass signals on, leave one Result.

Kubeflow's RANK is the *node's* rank. Without MASTER_ADDR the machine is on its own.
"""

from __future__ import annotations

from finetune_contract.start import heed_sigterm

if __name__ == "__main__":
    heed_sigterm()

import argparse
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from finetune_contract.layout import Layout
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.result import Outcome, Result
from finetune_contract.runconfig import RunConfig
from finetune_trainer.methods.registry import method_of
from finetune_trainer.process.ending import ResultFile, explain, failed
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.machine import cpu_count, out_of_memory_kills
from finetune_trainer.process.ports import HeldPort
from finetune_trainer.process.redaction import RedactedStream, Redaction
from finetune_trainer.process.runconfig import attempt_told, read_run_config
from finetune_trainer.process.sign import SignFile
from finetune_trainer.process.stopping import TORCHRUN_KILLS, TORCHRUN_VARIABLE, kept_grace
from finetune_trainer.process.verdict import RankEnd, pod_result
from finetune_trainer.stall import wait

log = logging.getLogger(__name__)

TERMINATION_LOG = Path("/dev/termination-log")
# Nodes may pull images of many GB one after the other; how long a start may take at all is the
# operator's to say.
RENDEZVOUS_SECONDS = 3600
RENDEZVOUS_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Node:
    """This machine's place among the workers."""

    rank: int
    master_addr: str
    master_port: int
    held: HeldPort | None = None  # of a machine on its own, so that torchrun finds the port free

    @classmethod
    def of(cls, layout: Layout, environment: Mapping[str, str]) -> Node:
        """Read Kubeflow's variables; raise InvalidRunConfig where they contradict the layout."""
        if "MASTER_ADDR" not in environment:
            if layout.workers > 1:
                raise _refused(f"layout.workers is {layout.workers}, but MASTER_ADDR is not set")
            port = HeldPort()
            return cls(0, "127.0.0.1", port.number, port)
        try:
            nodes = int(environment.get("PET_NNODES") or layout.workers)
            node = cls(
                int(environment.get("RANK", "0")),
                environment["MASTER_ADDR"],
                int(environment["MASTER_PORT"]),
            )
        except (KeyError, ValueError) as error:
            raise _refused("RANK, MASTER_PORT and PET_NNODES must be numbers") from error
        if nodes != layout.workers:
            raise _refused(f"PET_NNODES is {nodes}, but layout.workers is {layout.workers}")
        if not 0 <= node.rank < nodes:
            raise _refused(f"RANK is {node.rank}, but there are {nodes} workers")
        return node


class Relay:
    """Whether this process was told to stop; passes it on to torchrun as SIGTERM.

    It listens from before torchrun starts: as a container's first process it would otherwise miss
    the signal altogether.
    """

    def __init__(self) -> None:
        self.came = False
        self._process: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._listen)

    def reach(self, process: subprocess.Popen[bytes]) -> None:
        """Pass the signal on to a process, also one that came before."""
        self._process = process
        if self.came:
            process.terminate()

    def _listen(self, number: int, frame: FrameType | None) -> None:
        # Once: a second signal would make torchrun leave its ranks behind.
        if not self.came and self._process is not None:
            self._process.terminate()
        self.came = True


def main() -> int:
    """Return the exit code of the pod's Result."""
    redaction = Redaction()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s launch %(levelname)s %(message)s",
        stream=RedactedStream(sys.stderr, redaction),
    )
    arguments = _arguments()
    attempt = attempt_told()
    try:
        config = read_run_config(arguments.run_config)
        attempt = config.layout.attempt
        redaction.watch(config.layout.credentials)
        result = _run(config, arguments, redaction)
    except (Failure, OSError) as error:  # such as no space left for the ranks' Results
        result = failed(explain(error), attempt=attempt, rank=0)
    return _leave(redaction.result(result), arguments.termination_log)


def _run(config: RunConfig, arguments: argparse.Namespace, redaction: Redaction) -> Result:
    layout = config.layout
    node = Node.of(layout, os.environ)
    result_dir = Path(layout.scratch_dir, "results", f"node-{node.rank}")
    shutil.rmtree(result_dir, ignore_errors=True)
    result_dir.mkdir(parents=True)
    first = node.rank * layout.processes_per_worker
    ranks = range(first, first + layout.processes_per_worker)
    files = {rank: ResultFile(result_dir, rank) for rank in ranks}
    for file in files.values():
        file.reserve()
    command = [*_torchrun(layout, node), "--run-config", str(arguments.run_config.absolute())]
    command += ["--result-dir", str(result_dir)]
    if arguments.progress_file:
        command += ["--progress-file", str(arguments.progress_file.absolute())]
    _warn_of_short_grace(layout)
    kills = out_of_memory_kills()
    relay = Relay()
    with method_of(config.recipe.method).companion(config, node.rank):
        process = subprocess.Popen(
            command,
            env=_environment(layout),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        relay.reach(process)
        with redaction.passing_on(process):
            signs = {rank: SignFile(result_dir, rank) for rank in ranks}
            stall = wait(process, signs, layout, node.rank, lambda: relay.came)
    if stall is not None:
        return failed(stall, attempt=layout.attempt, rank=first)
    ends = [RankEnd.read(file, rank) for rank, file in files.items()]
    for end in ends:
        if end.crash:
            log.error("rank %d crashed in native code\n%s", end.rank, end.crash)
    return pod_result(
        ends,
        attempt=layout.attempt,
        world=layout.world_size,
        stopped=relay.came,
        memory_killed=out_of_memory_kills() > kills,
    )


def _warn_of_short_grace(layout: Layout) -> None:
    kept = kept_grace(layout.grace_seconds)
    if kept < layout.grace_seconds:
        log.warning(
            "this torch ends ranks %g s after SIGTERM, although "
            "spec.runPolicy.terminationGracePeriodSeconds is %g: a last checkpoint must be written "
            "within that; a newer torch waits longer",
            *(kept, layout.grace_seconds),
        )


def _torchrun(layout: Layout, node: Node) -> list[str]:
    # No restarts: with a static rendezvous they hang; the next attempt is the operator's.
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "static"),
        *("--rdzv-conf", f"timeout={RENDEZVOUS_SECONDS}"),
        *("--nnodes", str(layout.workers), "--node-rank", str(node.rank)),
        *("--nproc-per-node", str(layout.processes_per_worker), "--max-restarts", "0"),
        *("--master-addr", node.master_addr, "--master-port", str(node.master_port)),
        *("--log-dir", str(Path(layout.scratch_dir, "torchrun"))),
        *("--module", "finetune_trainer"),
    ]


def _environment(layout: Layout) -> dict[str, str]:
    """Return the ranks' environment, without the variables torchrun would read as its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in RENDEZVOUS_VARIABLES and not name.startswith("PET_")
    }
    threads = max(1, cpu_count() // layout.processes_per_worker)
    defaults = {
        "OMP_NUM_THREADS": str(threads),
        # Threads that spin while they wait take the CPU from the ranks they wait for.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Torch would multiply rotary positions by a Triton kernel, which a C compiler makes at run
        # time: images have none, and one that has would compute otherwise.
        "TORCH_DISABLE_NATIVE_JIT": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic algorithms ask for
        # How long torchrun waits for ranks after SIGTERM before SIGKILL.
        TORCHRUN_VARIABLE: str(math.ceil(TORCHRUN_KILLS * layout.grace_seconds)),
    }
    return {**defaults, **kept}


def _leave(result: Result, termination_log: Path) -> int:
    text = result.encode()
    # On a workstation there is no kubelet, and nothing to be created in /dev.
    if termination_log != TERMINATION_LOG or termination_log.exists():
        termination_log.write_text(text)
    level = logging.INFO if result.outcome is Outcome.SUCCEEDED else logging.ERROR
    log.log(level, "%s %s", result.reason, result.message)
    return exit_code(result.reason)


def _refused(message: str) -> Failure:
    return Failure(Reason.INVALID_RUN_CONFIG, message)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.launch", description=__doc__)
    parser.add_argument("--run-config", type=Path, required=True)
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    parser.add_argument(
        "--progress-file", type=Path, help="where rank 0 keeps its progress as JSON"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""One rank: RunConfig parsed and refused before any heavy import; every end becomes a Result.

Started by torchrun (see launch.py). The Result goes to `DIR/rank-<rank>.json`; whoever writes it
first, the run or the signal watcher, has the last word.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
from pathlib import Path

from finetune_contract.recipe import Quantization
from finetune_contract.runconfig import RunConfig
from finetune_trainer.process.ending import ResultFile, explain, failed, own_frames
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.logs import start_logging
from finetune_trainer.process.runconfig import attempt_told, read_run_config
from finetune_trainer.process.sign import SignFile
from finetune_trainer.process.stopping import Stop, interrupted

log = logging.getLogger(__name__)


def main() -> int:
    """Return the exit code of the rank's Result."""
    arguments = _arguments()
    rank = int(os.environ["RANK"])
    file = ResultFile(arguments.result_dir, rank)
    # Native code ends a process without a Result, as NCCL does at a time-out: this file tells it.
    faulthandler.enable(file.crash.open("w"))
    sign = SignFile(arguments.result_dir, rank)
    sign.begin()
    start_logging(rank)
    try:
        config = read_run_config(arguments.run_config)
    except Failure as failure:
        return file.write(failed(failure, attempt=attempt_told(), rank=rank))
    attempt = config.layout.attempt
    stop = Stop(
        config.layout.grace_seconds,
        leave=lambda: os._exit(file.write(failed(interrupted(), attempt=attempt, rank=rank))),
    )
    stop.listen()
    _leave_out_unused(config)
    try:
        from finetune_trainer.rank import run_rank
        from finetune_trainer.train import train_and_publish

        result = run_rank(config, file, sign, stop, arguments.progress_file, train_and_publish)
        return file.write(result)
    except BaseException as error:  # the process's edge: any end must become a Result
        log.error("rank %d failed", rank, exc_info=error)
        frames = own_frames(error)
        return file.write(failed(explain(error), attempt=attempt, rank=rank, frames=frames))


def _leave_out_unused(config: RunConfig) -> None:
    """Hide bitsandbytes from PEFT, which imports it, and torch's compiler with it, where it is."""
    if config.recipe.lora.quantization is Quantization.NONE:
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type] # Python's own way


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer", description=__doc__)
    parser.add_argument("--run-config", type=Path, required=True)
    parser.add_argument("--result-dir", type=Path, required=True)
    parser.add_argument("--progress-file", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # threads of a process group whose peers are gone may never end

"""A worker: confines itself, loads what it is told to, and scores batches until its input ends.

Started by the runner as `python -m finetune_rewards.runner.worker PARENT_PID`. Its standard input
and output carry messages; the code that it loads sees an empty input, and prints into the log.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable

from finetune_contract.reasons import Reason
from finetune_rewards.confine import process
from finetune_rewards.runner import frames
from finetune_rewards.runner.function import Function, Invalid
from finetune_rewards.runner.protocol import pack_items, unpack_samples
from finetune_rewards.scores.answers import one_line
from finetune_rewards.scores.blame import Code
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Item, Samples

TEMPORARY = "/tmp"  # noqa: S108 - nothing can be written there
Score = Callable[[Samples], list[Item]]


def main() -> None:
    """Serve until the runner closes the pipe."""
    process.end_with_parent(int(sys.argv[1]))
    requests, answers = _claim_pipes()
    header, body = frames.read_from(requests)
    try:
        scorers, lacks = _prepare(header, body)
    except process.Lacking as lacking:
        _refuse(answers, Reason.SANDBOX_UNAVAILABLE, str(lacking))
    except (Invalid, RewardInvalid) as invalid:
        _refuse(answers, Reason.REWARD_INVALID, str(invalid))
    else:
        frames.write_to(answers, {"ready": True, "lacks": lacks})
        _serve(requests, answers, scorers)


def _claim_pipes() -> tuple[int, int]:
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.closerange(max(requests, answers) + 1, os.sysconf("SC_OPEN_MAX"))
    return requests, answers


def _prepare(header: frames.Header, body: bytes) -> tuple[dict[str, Score], tuple[str, ...]]:
    if header["load"] == "builtins":
        # Loaded first: this code is trusted, and some of it unpacks its data through files. Not
        # imported for a user's function, which would start several times as slowly.
        from finetune_rewards.builtin import load

        scorers = load(body)
        return scorers, process.confine(header["memoryBytes"], allow_unconfined=True)
    lacks = process.confine(header["memoryBytes"], header["allowUnconfined"])
    # Libraries ask for it when they are imported, torch among them, and find it by writing there.
    # It is named so that they load; what really writes a file fails.
    tempfile.tempdir = TEMPORARY
    code = Code(header["file"], _decoded(body, header["file"]))
    return {header["name"]: Function(code, header["function"]).score}, lacks


def _decoded(source: bytes, file: str) -> str:
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is not UTF-8") from error


def _serve(requests: int, answers: int, scorers: dict[str, Score]) -> None:
    while True:
        try:
            header, body = frames.read_from(requests)
        except EOFError:
            return
        samples = unpack_samples(body)
        size = header["chunk"]
        for start in range(header["start"], len(samples), size):
            part = samples.slice(start, start + size)
            try:
                found, spent = scorers[header["reward"]](part), False
            except MemoryError:  # what is left may be too little to go on with
                found, spent = [Item(error="MemoryError")] * len(part), True
            answer = {"id": header["id"], "spent": spent}
            frames.write_to(answers, answer, pack_items(found))


def _refuse(answers: int, reason: Reason, message: str) -> None:
    frames.write_to(answers, {"ready": False, "reason": reason, "message": one_line(message)})


if __name__ == "__main__":
    main()

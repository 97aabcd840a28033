"""A pod whose ranks get on no more: their stacks into its log and the bucket, then its end.

The launcher's. It looks at changes only and at no clock of another machine, and counts no time in
which it was itself held up.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from threading import Thread

from finetune_contract.artifact import stacks_path
from finetune_contract.layout import Layout
from finetune_contract.progress import START_SECONDS
from finetune_contract.reasons import Reason
from finetune_trainer.process.ending import explain
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.sign import Sign, SignFile
from finetune_trainer.process.stacks import Stack, ask, in_words
from finetune_trainer.store.storage import Role, Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
UPLOAD_SECONDS = 60.0
# In which other pods see the stall too, before this one's ranks end and theirs with them. Pods that
# only wait for another's rank let that pod end first: it knows more.
OTHERS_SECONDS = 10.0
WAITING_SECONDS = 5.0


class Watch:
    """How long the ranks of this pod have stood still."""

    def __init__(self, files: Mapping[int, SignFile], clock: Callable[[], float] = time.monotonic):
        self._files = files
        self._clock = clock
        self._looked = clock()
        self._moves: list[int] = []
        self.seconds = 0.0
        self.signs: dict[int, Sign] = {}

    def stands_still(self) -> bool:
        """Look; tell whether it is for longer than any of them may."""
        now = self._clock()
        # However long ago the last look was: then this process too was stopped or frozen.
        self.seconds += min(now - self._looked, 5 * LOOK_SECONDS)
        self._looked = now
        found = {rank: file.read() for rank, file in self._files.items()}
        self.signs = {rank: sign for rank, sign in found.items() if sign is not None}
        moves = [sign.moves for sign in self.signs.values()]
        if moves != self._moves:
            self._moves, self.seconds = moves, 0.0
        patience = max((sign.patience for sign in self.signs.values()), default=START_SECONDS)
        return self.seconds >= patience


def wait(
    process: subprocess.Popen[bytes],
    files: Mapping[int, SignFile],
    layout: Layout,
    node: int,
    stopped: Callable[[], bool],
) -> Failure | None:
    """Wait for torchrun's end; return the stall that it was ended for, if it was.

    Once the pod is told to stop (`stopped`), its ranks have their grace and no more.
    """
    watch = Watch(files)
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
            return None
        if not stopped() and watch.stands_still():
            failure = _told(watch, files, layout, node)
            _end(process, watch.signs.values())
            return failure


def _told(watch: Watch, files: Mapping[int, SignFile], layout: Layout, node: int) -> Failure:
    """Tell the stacks to log and bucket, and return what they mean."""
    began = time.monotonic()
    log.error("no rank got on for %.0f s; their stacks follow", watch.seconds)
    stacks = ask({rank: (files[rank], sign) for rank, sign in watch.signs.items()})
    text = "".join(
        f"rank {rank}, {stack.state}\n{stack.text}\n" for rank, stack in sorted(stacks.items())
    )
    log.error("%s", text)
    kept = _keep(layout, node, text)
    if layout.workers > 1:
        others = OTHERS_SECONDS + WAITING_SECONDS * all(stack.waits for stack in stacks.values())
        time.sleep(max(0.0, began + others - time.monotonic()))
    return _failure(watch, stacks, kept)


def _failure(watch: Watch, stacks: Mapping[int, Stack], kept: str) -> Failure:
    first = min(watch.signs.values(), key=lambda sign: sign.pid, default=Sign(0))
    culprits = [rank for rank, stack in stacks.items() if not stack.waits]
    where = f" in {first.phase}" if first.phase else ""
    step = f" at step {first.step}" if first.step else ""
    return Failure(
        Reason.STALLED,
        f"no rank got on for {watch.seconds:.0f} s{where}{step}: {in_words(stacks)}; {kept}",
        step=first.step,
        rank=min(culprits or stacks, default=None),
    )


def _keep(layout: Layout, node: int, text: str) -> str:
    """Write stacks into the bucket, in bounded time; return where they are, or why not there."""
    path = stacks_path(layout.job.uid, layout.attempt, node)
    told = ["the stacks are in the pod's log, as the store did not answer"]

    def write() -> None:
        try:
            Store(layout.output_uri, Role.OUTPUT, layout.credentials.output).write(
                path, text.encode()
            )
            told.append(f"the stacks are in the pod's log and at {layout.output_uri}/{path}")
        except BaseException as error:  # noqa: BLE001 - the thread's edge; obstore panics
            log.warning("the stacks are not in the bucket: %s", explain(error).message)
            told.append("the stacks are in the pod's log")

    writer = Thread(target=write, name="stacks", daemon=True)
    writer.start()
    writer.join(UPLOAD_SECONDS)
    return told[-1]


def _end(process: subprocess.Popen[bytes], signs: Iterable[Sign]) -> None:
    """End ranks that listen to no word, and torchrun with them."""
    for sign in signs:
        with suppress(ProcessLookupError):
            os.kill(sign.pid, signal.SIGKILL)
    process.wait()

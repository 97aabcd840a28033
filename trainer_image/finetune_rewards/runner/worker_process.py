"""The runner's end of one worker process: started, spoken with, watched, killed.

Whatever the process does, its end here is short: its whole group is killed, and nothing of what it
did lives on. It runs from what it is sent until the runner lets it rest: nobody bounds the time of
what it would do unasked, and others would wait for their cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from finetune_rewards.runner import frames
from finetune_rewards.runner.vitals import Vitals

log = logging.getLogger(__name__)
T = TypeVar("T")

# Isolated from PYTHONPATH, the user's site and the working directory; unbuffered.
COMMAND = (sys.executable, "-s", "-P", "-B", "-u", "-m", "finetune_rewards.runner.worker")
# Hashes, and so the order of sets, are alike in every run. One thread each: memory is bounded, and
# a library would reserve some of it per core. No program is found, for none can be run:
# ctypes would write a file for a compiler that it finds. Libraries ask for the user's name and home
# (matplotlib for a place of its own as well), and in a pod passwd has none.
ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - nothing can be written there
    "LC_ALL": "C.UTF-8",
    "MPLCONFIGDIR": "/tmp",  # noqa: S108
    "OMP_NUM_THREADS": "1",
    "PATH": "",
    "PYTHONHASHSEED": "0",
    "USER": "finetune",
}
WATCH_SECONDS = 0.02  # in which code may fill some 100 MB
DYING_SECONDS = 2.0  # between a channel's end and its process's
LOG_BYTES = 64 * 1024  # per batch; the rest of what a worker prints is dropped


class WorkerFailed(Exception):
    """The worker gave no usable answer; the message says why, in a few words."""


class WorkerLate(WorkerFailed):
    """It gave none in time, or could not be started: another time it may."""


class WorkerProcess:
    """One process, until it fails or is ended."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], memory_bytes: int) -> None:
        self._popen = popen
        self._vitals = Vitals(popen.pid, memory_bytes)
        self._log = _Log(name)
        self._awake = asyncio.Event()
        self._awake.set()
        self._why = ""

    @classmethod
    async def started(cls, name: str, command: Sequence[str], memory_bytes: int) -> WorkerProcess:
        """Start one, and begin to listen to it and to watch it; `name` is said in the log.

        It confines itself to `memory_bytes`; what it gets beyond is seen here.

        Raises:
            WorkerLate: if this machine can start no process.
        """
        try:
            popen, channel = _spawned(command)
        except OSError as error:
            raise WorkerLate(f"no process can be started: {error.strerror}") from error
        worker = cls(name, popen, memory_bytes)
        try:
            await worker._listen(channel)
        except BaseException:
            # A cancellation included: nobody else knows of the process yet.
            popen.kill()
            raise
        return worker

    async def _listen(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._reader, self._writer = await asyncio.open_unix_connection(sock=channel)
        self._log_pipe, _ = await loop.connect_read_pipe(lambda: self._log, self._popen.stderr)
        self._watching = asyncio.create_task(self._watch())

    @property
    def alive(self) -> bool:
        """Tell whether the process has not ended."""
        return self._popen.poll() is None

    def rest(self) -> None:
        """Stop the process, with all its threads, until it is sent something."""
        self._signal(signal.SIGSTOP)
        self._awake.clear()

    async def send(self, header: frames.Header, body: bytes, seconds: float) -> None:
        """Hand over a message; raise WorkerFailed where it is not taken in time."""
        self._log.refill()
        self._signal(signal.SIGCONT)
        self._awake.set()
        self._writer.write(frames.encode(header, body))
        await self._in_time(self._writer.drain(), seconds)

    async def receive(self, most_body: int, seconds: float) -> tuple[frames.Header, bytes]:
        """Return its next message; raise WorkerFailed where none comes, or anything else."""
        message: tuple[frames.Header, bytes] = await self._in_time(
            frames.read(self._reader, most_body), seconds
        )
        return message

    async def end(self) -> None:
        """Kill what there is of it."""
        self._signal(signal.SIGKILL)
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        await asyncio.to_thread(self._popen.wait)
        self._writer.close()
        self._log_pipe.close()

    async def _in_time(self, work: Awaitable[T], seconds: float) -> T:
        try:
            return await asyncio.wait_for(work, seconds)
        except TimeoutError:
            raise WorkerLate(f"no answer within {seconds:g} s") from None
        except frames.BadFrame as error:
            raise WorkerFailed(str(error)) from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise WorkerFailed(await self._death()) from error

    async def _death(self) -> str:
        try:
            status = await asyncio.to_thread(self._popen.wait, DYING_SECONDS)
        except subprocess.TimeoutExpired:
            return "the process closed its channel"
        if self._why:
            return self._why
        if status < 0:
            return f"the process was ended by {signal.Signals(-status).name}"
        return f"the process ended with exit code {status}"

    async def _watch(self) -> None:
        while self.alive:
            await self._awake.wait()
            if (excess := self._vitals.excess()) is not None:
                self._why = excess
                self._signal(signal.SIGKILL)
            await asyncio.sleep(WATCH_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)


def _spawned(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as stack:
        stack.callback(ours.close)
        popen = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
        stack.pop_all()
    return popen, ours


class _Log(asyncio.Protocol):
    """What a worker prints, line by line into the runner's log, up to a bound per batch."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = LOG_BYTES
        self._dropped = 0
        self._line = b""

    def refill(self) -> None:
        """Begin a batch."""
        if self._dropped:
            log.warning("%s: %d more bytes of output were dropped", self._name, self._dropped)
        self._left, self._dropped = LOG_BYTES, 0

    def data_received(self, data: bytes) -> None:
        kept = data[: self._left]
        self._left -= len(kept)
        self._dropped += len(data) - len(kept)
        *lines, self._line = (self._line + kept).split(b"\n")
        if len(self._line) > LOG_BYTES:  # of many batches, and no end in sight
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            log.info("%s: %s", self._name, printable(line))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._line:
            log.info("%s: %s", self._name, printable(self._line))
        self.refill()


def printable(line: bytes) -> str:
    """Return a line of a worker's as it may stand in a log: no control characters."""
    return "".join(c if c.isprintable() else " " for c in line.decode(errors="replace")).rstrip()

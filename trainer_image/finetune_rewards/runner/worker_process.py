"""The runner's end of one worker process: started, spoken with, watched, killed.

Whatever the process does, its end here is short: its whole group is killed, and nothing of what it
did lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import psutil

from finetune_rewards.runner import frames

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
MOST_THREADS = 128  # nothing else bounds those of root
# Beyond what a worker may allocate: what was relocated or written before it became read-only.
UNCOUNTED_BYTES = 256 * 2**20
WATCH_SECONDS = 0.1
CPU_MARGIN_SECONDS = 1.0
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
        self._process = psutil.Process(popen.pid)
        self._memory = memory_bytes
        self._log = _Log(name)
        self._most_cpu_seconds = math.inf
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

    async def send(
        self, header: frames.Header, body: bytes, seconds: float, work_seconds: float
    ) -> None:
        """Hand over a message that means work for so long; raise WorkerFailed where it is not
        taken in time."""
        self._log.refill()
        self._allow_cpu(work_seconds)
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
        self._kill()
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
        with contextlib.suppress(psutil.NoSuchProcess):
            while self.alive:
                memory = self._process.memory_info()
                if self._process.num_threads() > MOST_THREADS:
                    self._end_for(f"the process had more than {MOST_THREADS} threads")
                elif memory.rss - memory.shared > self._memory + UNCOUNTED_BYTES:
                    self._end_for(f"the process took more than its {self._memory / 2**20:g} MiB")
                # The kernel's own limit is a signal, which code may ignore.
                elif self._cpu_seconds() > self._most_cpu_seconds:
                    self._end_for("the process used its cores for longer than its batches may")
                await asyncio.sleep(WATCH_SECONDS)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def _allow_cpu(self, seconds: float) -> None:
        """Let the process use its cores for so long, whatever it used before."""
        # That it ended is told when it is read from.
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            most = math.ceil(self._cpu_seconds() + seconds * (os.cpu_count() or 1)) + 1
            hard = resource.prlimit(self._popen.pid, resource.RLIMIT_CPU)[1]
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(self._popen.pid, resource.RLIMIT_CPU, (bound, hard))
            self._most_cpu_seconds = most + CPU_MARGIN_SECONDS

    def _end_for(self, why: str) -> None:
        self._why = why
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)


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
        for line in lines:
            log.info("%s: %s", self._name, printable(line))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._line:
            log.info("%s: %s", self._name, printable(self._line))
        self.refill()


def printable(line: bytes) -> str:
    """Return a line of a worker's as it may stand in a log: no control characters."""
    return "".join(c if c.isprintable() else " " for c in line.decode(errors="replace")).rstrip()

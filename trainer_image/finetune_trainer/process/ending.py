"""How a rank ends: any exception -> a Result, one file per rank, and a prompt end on SIGTERM.

Torch-free, so that a rank can end well before torch is imported.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from pathlib import Path
from threading import Lock

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.result import MAX_BYTES, Outcome, Result, decode
from finetune_trainer.process.errors import Failure

PACKAGE = Path(__file__).parents[1]  # finetune_trainer/
DISTRIBUTED_ERRORS = {"DistError"}  # of torch, whose others are kinds of it
DISTRIBUTED_WORDS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
MEMORY_ERRORS = {"OutOfMemoryError", "MemoryError"}
MEMORY_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "_status_alloc_failed",  # of cuBLAS, cuDNN, cuSOLVER and their like
    "statusallocfailed",
    "std::bad_alloc",
)
# What the node denies, by the words of NCCL, torch and the C library, and what is to be done. They
# speak of memory and of space as well, so these stand before those.
NODE_LIMITS = tuple(
    (re.compile(words, re.DOTALL), remedy)
    for words, remedy in (
        (
            r"ibv_\w+ failed.*cannot allocate memory"
            r"|unable to register memory.*cannot allocate memory",
            "locked memory (RLIMIT_MEMLOCK), which RDMA needs: set LimitMEMLOCK=infinity for the "
            "node's container runtime",
        ),
        (
            r"dev/shm.*no space left|no space left.*dev/shm|posix_fallocate.*no space left"
            r"|failed to extend /dev/shm|creating shared memory segment"
            r"|(unable to write to file|unable to resize file) </torch_",
            "shared memory (/dev/shm), which is as large as the pod's memory: raise "
            "workers.resources.limits.memory",
        ),
        (
            r"too many open files|os error 2[34]\b|received 0 items of ancdata",
            "open files (RLIMIT_NOFILE): raise LimitNOFILE for the node's container runtime",
        ),
        (
            r"can't start new thread|pthread_create.*resource temporarily unavailable"
            r"|^(\[errno 11\] )?resource temporarily unavailable$",
            "threads and processes: raise the kubelet's podPidsLimit",
        ),
    )
)
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT}
DISK_WORDS = ("no space left on device", "os error 28", "disk quota exceeded")
DEVICE_WORDS = (
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "unspecified launch failure",
    "fallen off the bus",
    "gpu is lost",
    "hardware stack error",
)


# What torch says under `use_deterministic_algorithms`: the operation's name and no more.
NOT_DETERMINISTIC = re.compile(r"([\w.:]+) does not have a deterministic implementation")


class ResultFile:
    """One rank's Result on disk. It is written once: the first writer has the last word.

    `crash` is there from the rank's beginning, and holds what native code ended it with, if any.
    """

    def __init__(self, directory: Path, rank: int) -> None:
        self._path = directory / f"rank-{rank}.json"
        self._reserved = directory / f"rank-{rank}.reserved"
        self._writing = Lock()
        self.crash = directory / f"rank-{rank}.crash"

    def reserve(self) -> None:
        """Take the disk space now, so that a full disk can still be told. Raises OSError."""
        with self._reserved.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, MAX_BYTES)

    def write(self, result: Result) -> int:
        """Write the Result, unless there is one; return the exit code of the one that stands."""
        with self._writing:  # the threads that end this process write from there
            standing = self.read()
            if standing is not None:
                return exit_code(standing.reason)
            text = result.encode().encode()
            file = os.open(self._reserved, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(file, text)  # over what is reserved: cut first, it would give the space back
            os.ftruncate(file, len(text))
            os.close(file)
            self._reserved.rename(self._path)
        return exit_code(result.reason)

    def read(self) -> Result | None:
        """Return the Result; None if the rank left none."""
        return decode(self._path.read_text()) if self._path.exists() else None

    def written_at(self) -> int:
        """Return when it was written, in ns since the epoch."""
        return self._path.stat().st_mtime_ns


def failed(failure: Failure, *, attempt: int, rank: int, frames: tuple[str, ...] = ()) -> Result:
    """Return the Result of a failure."""
    return Result(
        attempt=attempt,
        outcome=Outcome.FAILED,
        reason=failure.reason,
        message=failure.message,
        step=failure.step,
        rank=rank if failure.rank is None else failure.rank,
        frames=frames,
    )


def is_disk_full(error: BaseException) -> bool:
    """Tell whether a file could not grow: by its errno, or in the words of a library in Rust."""
    text = str(error).lower()
    return getattr(error, "errno", None) in DISK_ERRORS or any(word in text for word in DISK_WORDS)


def explain(error: BaseException) -> Failure:
    """Return the failure that an exception means.

    The text of a foreign exception may quote a data row or a URL with a key: it is never shown.
    """
    if isinstance(error, Failure):
        return error
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(word in text for word in DEVICE_WORDS):
        return Failure(Reason.DEVICE_FAILED, "the GPU reported a fault; the pod's log has its text")
    if isinstance(error, RuntimeError | OSError) and (limit := node_limit(text)):
        return limit
    if names & MEMORY_ERRORS or any(word in text for word in MEMORY_WORDS):
        return Failure(Reason.OUT_OF_MEMORY, "the process could not get the memory it asked for")
    if is_disk_full(error):
        return Failure(Reason.DISK_FULL, "no space left on the disk of scratchDir or cacheDir")
    if names & DISTRIBUTED_ERRORS or (
        isinstance(error, RuntimeError) and any(word in text for word in DISTRIBUTED_WORDS)
    ):
        return Failure(Reason.DISTRIBUTED_FAILURE, "lost the connection to another rank")
    if isinstance(error, RuntimeError) and (found := NOT_DETERMINISTIC.match(str(error))):
        return Failure(
            Reason.DEVICE_UNSUPPORTED,
            f"spec.training.deterministic: {found[1]} has no deterministic kernel on this device; "
            "set it to false",
        )
    kind = type(error)
    return Failure(
        Reason.TRAINER_ERROR, f"{kind.__module__}.{kind.__qualname__}; the pod's log has its text"
    )


def node_limit(text: str) -> Failure | None:
    """Return the failure of a text, in lower case, that tells of a limit of the node; else None."""
    found = next((remedy for words, remedy in NODE_LIMITS if words.search(text)), None)
    return Failure(Reason.NODE_LIMIT, f"the node's limit of {found}") if found else None


def own_frames(error: BaseException) -> tuple[str, ...]:
    """Return this package's stack frames, innermost last: file, line and function, no values."""
    return tuple(
        f"{Path(frame.filename).relative_to(PACKAGE)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(PACKAGE)
    )

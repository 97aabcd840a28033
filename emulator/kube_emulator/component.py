"""What the processes have in common: a line when they serve, an end on a signal."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

READY = "ready"


def log_to_stderr() -> None:
    """One line per record, with its time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")


def announce_ready(where: str = "") -> None:
    """Tell whoever started this process, on standard output, that it serves, and where."""
    sys.stdout.write(f"{READY} {where}".rstrip() + "\n")
    sys.stdout.flush()


async def until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it fails, or SIGTERM or SIGINT cancels it."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task

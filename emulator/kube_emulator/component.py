"""What the processes have in common: a line when they serve, an end on a signal."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from kube_emulator.client import Client

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


def run_client(
    description: str | None, work: Callable[[Client], Coroutine[Any, Any, None]]
) -> None:
    """Be a process that works with the server of `--kubeconfig` until it is told to stop."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    log_to_stderr()
    asyncio.run(_work(parser.parse_args().kubeconfig, work))


async def _work(kubeconfig: Path, work: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    client = await Client.connect(kubeconfig)
    try:
        announce_ready()
        await until_signalled(work(client))
    finally:
        await client.close()

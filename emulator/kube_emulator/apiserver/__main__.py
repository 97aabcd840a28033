"""`python -m kube_emulator.apiserver --port 0 --dir DIR`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from kube_emulator.apiserver.server import ApiServer


async def _serve(directory: Path, port: int) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with ApiServer(directory, port) as server:
        sys.stdout.write(f"ready {server.url} {server.kubeconfig}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kube_emulator.apiserver", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="where CA and kubeconfig go")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.dir, arguments.port))


if __name__ == "__main__":
    main()

"""`python -m kube_emulator.apiserver --port 0 --dir DIR`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from kube_emulator.apiserver.server import ApiServer
from kube_emulator.component import announce_ready, until_signalled


async def _serve(directory: Path, port: int) -> None:
    async with ApiServer(directory, port) as server:
        announce_ready(f"{server.url} {server.kubeconfig}")
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="where CA and kubeconfig go")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    arguments = parser.parse_args()
    asyncio.run(until_signalled(_serve(arguments.dir, arguments.port)))


if __name__ == "__main__":
    main()

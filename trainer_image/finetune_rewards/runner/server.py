"""The runner behind a Unix socket, until it is told to stop.

Whoever may write to the socket may ask; it lets nobody but its own user in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

from finetune_rewards.runner import frames
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import VERSION
from finetune_rewards.runner.replies import ANSWERS, DESCRIBED
from finetune_rewards.runner.start_failure import forget_start_failure

log = logging.getLogger(__name__)


class Server:
    """Answers `describe` and `score`; a connection's requests one after the other."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._started = asyncio.Event()

    async def serve(self, path: Path, stop: asyncio.Event) -> None:
        """Listen at `path` until `stop` is set; then end the workers.

        Raises OSError where it can not listen there, and whatever keeps the runner from its start.
        """
        forget_start_failure(path)
        listening = _listening(path)
        server = await asyncio.start_unix_server(self._connection, sock=listening)
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            await stopping
        finally:
            server.close()
            stopping.cancel()
            starting.cancel()
            await asyncio.wait((starting, stopping))
            await self._runner.stop()

    async def _start(self) -> None:
        await self._runner.start()
        for reward in self._runner.describe():
            if reward.problem:
                log.error("%s: %s %s", reward.name, reward.problem.reason, reward.problem.message)
            else:
                log.info("%s is ready %s", reward.name, reward.revision or "")
        self._started.set()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(frames.encode(*await self._answer(*await frames.read(reader))))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client is gone
        except frames.BadFrame as error:
            log.warning("a client was sent away: %s", error)
        finally:
            writer.close()

    async def _answer(self, header: frames.Header, body: bytes) -> tuple[frames.Header, bytes]:
        await self._started.wait()
        if (version := header.get("version")) != VERSION:
            return {"error": f"this runner speaks version {VERSION}, not {version}"}, b""
        match header:
            case {"ask": "describe"}:
                return {}, DESCRIBED.dump_json(self._runner.describe())
            case {"ask": "score", "count": int(count), "revisions": dict(expected)}:
                if changed := self._runner.changed(expected):
                    return {"changed": changed}, b""
                return {}, ANSWERS.dump_json(await self._runner.score(body, count))
        return {"error": "asked for neither describe nor score"}, b""


def _listening(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of a runner that was before
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)
    return listening

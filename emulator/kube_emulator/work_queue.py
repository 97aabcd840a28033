"""A deduplicating queue of object keys, worked through one at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from kube_emulator.client import ApiError, Informer

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


class WorkQueue:
    """Calls `reconcile(key)` for every key that was added, again when the API server refused."""

    def __init__(
        self, reconcile: Callable[[str], Awaitable[None]], retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._reconcile, self._retry_seconds = reconcile, retry_seconds
        self._keys: dict[str, None] = {}
        self._filled = asyncio.Event()

    def add(self, key: str) -> None:
        """Ask for a pass; a key that waits already is not added twice."""
        self._keys[key] = None
        self._filled.set()

    def add_later(self, key: str, seconds: float) -> None:
        """Ask for a pass when `seconds` have gone by."""
        asyncio.get_running_loop().call_later(seconds, self.add, key)

    async def run(self, informers: Iterable[Informer]) -> None:
        """Work until cancelled, from when every informer has listed."""
        for informer in informers:
            await informer.synced.wait()
        while True:
            await self._filled.wait()
            key = next(iter(self._keys))
            del self._keys[key]
            if not self._keys:
                self._filled.clear()
            try:
                await self._reconcile(key)
            except ApiError as error:
                log.info("%s: %s; trying again", key, error)
                self.add_later(key, self._retry_seconds)

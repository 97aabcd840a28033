"""Fill the cache before the first decision, and compare it with the server ever after.

A watch can miss a deletion (a gap, then a new list), so everything is listed again from time to
time and the difference is taken in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from finetune_api.job import KIND
from finetune_operator.cluster.api import Api, ApiError, Unreachable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.job.names import SELECTOR

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
# Deletions between the first list and the first watch are shown by neither.
_SECOND_LIST_SECONDS = 30.0


class BackendAppeared(Exception):
    """A kind is served now that was not at the start, so no watch is on it: start anew."""


@dataclass
class Synchroniser:
    """Lists jobs and their `children`, kinds; `add` is told of every job for which a list shows
    something new. Without `namespaces` it lists all of them."""

    api: Api
    cache: Cache
    children: Collection[str]
    namespaces: tuple[str, ...]
    add: Callable[[Key], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _unserved: set[str] = field(default_factory=set, init=False)

    async def run(self, relist_seconds: float) -> None:
        """Open the gate after the first complete list, then list again until cancelled."""
        while True:
            listed = await self._tried()
            if listed and not self.cache.synced:
                self.cache.synced = True
                for key, _ in list(self.cache.jobs()):
                    self.add(key)
                await self.sleep(min(_SECOND_LIST_SECONDS, relist_seconds))
            elif self._unserved:
                await self.sleep(_SECOND_LIST_SECONDS)
            else:
                await self.sleep(relist_seconds if listed else _RETRY_SECONDS)

    async def relist(self) -> None:
        """List every kind once. Raises ApiError, Unreachable or BackendAppeared."""
        for namespace in self.namespaces or (None,):
            for kind in (*self.children, KIND):
                selector = SELECTOR if kind in self.children else ""
                try:
                    listing = await self.api.list_objects(kind, namespace, selector)
                except ApiError as error:
                    if error.code == 404 and kind in self.children:
                        self._unserved.add(kind)
                        continue
                    raise
                if kind in self._unserved:
                    raise BackendAppeared(f"{kind} is served now; starting anew to watch it")
                for key in self.cache.replace(kind, listing.items, listing.version, namespace):
                    self.add(key)

    async def _tried(self) -> bool:
        try:
            await self.relist()
        except (ApiError, Unreachable) as error:
            log.warning("listing failed: %s", error)
            return False
        return True

"""Fill the cache before the first decision, and compare it with the server ever after.

A watch can miss a deletion (a gap, then a new list), so everything is listed again from time to
time and the difference is taken in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from finetune_api.job import KIND
from finetune_operator.cluster.api import Api, ApiError, Listing, Unreachable
from finetune_operator.cluster.cache import Cache, Key, Scope
from finetune_operator.job.names import SELECTOR
from finetune_operator.job.resources import NAMESPACE

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
# Deletions between the first list and the first watch are shown by neither.
_SECOND_LIST_SECONDS = 30.0
# A kind that is not served, or a namespace that may not be read, is asked for so often.
_LACKING_SECONDS = 3.0


async def pages(
    api: Api, kind: str, namespace: str | None, selector: str
) -> AsyncIterator[Listing]:
    """Yield a list page by page: nobody has to hold all of it."""
    page = await api.list_objects(kind, namespace, selector)
    yield page
    while page.following:
        page = await api.list_objects(kind, namespace, selector, page.following)
        yield page


async def take_in(
    api: Api,
    cache: Cache,
    kind: str,
    namespace: str | None,
    selector: str,
    scope: Scope,
    add: Callable[[Key], object] = lambda key: None,
) -> None:
    """List, and let the cache be as the list; `add` is told of every job for which that shows
    anything new: of a page at once, for what was taken in is news neither to the next try of a list
    that broke off nor to a watch. Raises ApiError or Unreachable."""
    listed: set[str] = set()
    at = ""
    async for page in pages(api, kind, namespace, selector):
        listed.update(item["metadata"]["uid"] for item in page.items)
        for key in {key for item in page.items if (key := cache.put(item)) is not None}:
            add(key)
        at = page.version
    for key in cache.lacks(kind, listed, at, scope):
        add(key)


@dataclass
class Synchroniser:
    """Lists jobs and their `children`, kinds; `add` is told of every job for which a list shows
    something new, `served` of a kind that is served now and was not before, so that no watch is on
    it. It lists `namespaces`, or those that have the labels of a `selector`, or all of them."""

    api: Api
    cache: Cache
    children: Collection[str]
    namespaces: tuple[str, ...]
    add: Callable[[Key], None]
    served: Callable[[str], None] = lambda kind: None
    selector: str = ""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _unserved: set[str] = field(default_factory=set, init=False)
    _missed: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def miss(self) -> None:
        """List soon: the watches have missed something, such as a kind that is served no more."""
        self._missed.set()

    async def run(self, relist_seconds: float) -> None:
        """Open the gate after the first complete list, then list again until cancelled."""
        pause = _RETRY_SECONDS
        while True:
            self._missed.clear()
            if await self._tried(self.relist):
                first = self._open()
                pause = min(_SECOND_LIST_SECONDS, relist_seconds) if first else relist_seconds
            else:
                pause = _RETRY_SECONDS
            while pause > _LACKING_SECONDS and self._lacks() and not self._missed.is_set():
                await self.sleep(_LACKING_SECONDS)
                pause -= _LACKING_SECONDS
                if await self._tried(self._ask_for_what_lacks):
                    pause = 0.0
            await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        """Sleep, and no longer than a moment once something was missed."""
        sleeps = asyncio.ensure_future(self.sleep(seconds))
        missed = asyncio.create_task(self._missed.wait())
        try:
            await asyncio.wait((sleeps, missed), return_when=asyncio.FIRST_COMPLETED)
            if sleeps.done():
                sleeps.result()
            else:
                await self.sleep(_LACKING_SECONDS)
        finally:
            sleeps.cancel()
            missed.cancel()

    async def relist(self) -> bool:
        """List every kind once, namespace by namespace. Return whether jobs could be listed at all.
        Raises Unreachable, and once all have been tried the first ApiError."""
        await self._choose()
        refused: list[ApiError] = []
        for namespace in self._scopes():
            try:
                await self._list(namespace)
            except ApiError as error:
                refused.append(error)
        if refused:
            raise refused[0]
        return KIND not in self._unserved

    def _scopes(self) -> Sequence[str | None]:
        chosen = self.cache.chosen
        return self.namespaces or ((None,) if chosen is None else sorted(chosen))

    async def _choose(self) -> None:
        """Learn which namespaces have the labels; a new one is closed until it has been listed."""
        if not self.selector:
            return
        before, now = self.cache.chosen or set(), set[str]()
        async for page in pages(self.api, NAMESPACE, None, self.selector):
            now.update(item["metadata"]["name"] for item in page.items)
        for name in now ^ before:
            for key in self.cache.close(name):
                self.add(key)
        self.cache.chosen = now
        self.cache.closed &= now

    def _open(self) -> bool:
        """Let decisions be made; return whether none could be before."""
        if self.cache.synced:
            return False
        self.cache.synced = True
        self._add_all(None)
        return True

    def _add_all(self, namespace: str | None) -> None:
        for key, _ in list(self.cache.jobs()):
            if namespace in (None, key.namespace):
                self.add(key)

    def _lacks(self) -> bool:
        return bool(self._unserved or self.cache.closed or self.selector)

    async def _ask_for_what_lacks(self) -> bool:
        """Return whether a kind is served now that was not."""
        await self._choose()
        for namespace in sorted(self.cache.closed):
            await self._list(namespace)
        return any([await self._is_served(kind) for kind in sorted(self._unserved)])

    async def _is_served(self, kind: str) -> bool:
        for namespace in self._scopes():
            if namespace not in self.cache.closed:
                await self._list_kind(kind, namespace)
                return kind not in self._unserved
        return False

    async def _list(self, namespace: str | None) -> None:
        """List a namespace, or all. One that may not be read is no reason to stop at others."""
        try:
            for kind in (*self.children, KIND):
                await self._list_kind(kind, namespace)
        except ApiError as error:
            if namespace is None or error.code != 403:
                raise
            if namespace not in self.cache.closed:
                log.warning("namespace %s may not be read, or is gone: %s", namespace, error)
            for key in self.cache.close(namespace):
                self.add(key)
            return
        if namespace in self.cache.closed:
            log.info("namespace %s is read now", namespace)
            self.cache.closed.remove(namespace)
            self._add_all(namespace)

    async def _list_kind(self, kind: str, namespace: str | None) -> None:
        selector = SELECTOR if kind in self.children else ""
        try:
            await take_in(self.api, self.cache, kind, namespace, selector, namespace, self.add)
        except ApiError as error:
            if error.code != 404:
                raise
            self._unserved.add(kind)
            return
        if kind in self._unserved:
            self._unserved.remove(kind)
            log.info("%s is served now", kind)
            self.served(kind)
            self._add_all(None)

    async def _tried(self, work: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await work()
        except (ApiError, Unreachable) as error:
            log.warning("listing failed: %s", error)
            return False

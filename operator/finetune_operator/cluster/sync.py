"""Fill the cache before the first decision, and keep it as the server's objects are.

A kind is listed, and then watched from the version of that list on: nothing can happen in between.
What a watch can not tell, another list does. Jobs are watched by Kopf, which says when that begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from math import inf

from finetune_api.job import KIND
from finetune_operator.cluster.api import Api, ApiError, Listing, Unreachable, Unreadable
from finetune_operator.cluster.cache import Cache, Key, Scope, key_of
from finetune_operator.cluster.together import until_one_ends
from finetune_operator.job.names import MANAGED_BY, MANAGER, SELECTOR, Object
from finetune_operator.job.resources import NAMESPACE

log = logging.getLogger(__name__)

# A kind that is not served, or a namespace that may not be read, is asked for so often.
_LACKING_SECONDS = 3.0
# What lost its label no watch shows; it is asked for so often.
_UNWATCHED_SECONDS = 30.0
# Pauses after the first failure in a row, and after many.
_BASE_SECONDS, _CAP_SECONDS = 1.0, 8.0
# How long watches of jobs may take to begin; twice as long each time that they do not.
_BEGIN_SECONDS, _MOST_WAITS = 10.0, 3


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
) -> str:
    """List, and let the cache be as the list; return the version of both. `add` is told of every
    job for which that shows anything new: of a page at once, for what was taken in is news neither
    to the next try of a list that broke off nor to a watch. Raises ApiError or Unreachable."""
    listed: set[str] = set()
    at = ""
    async for page in pages(api, kind, namespace, selector):
        listed.update(item["metadata"]["uid"] for item in page.items)
        for key in {key for item in page.items if (key := cache.put(item)) is not None}:
            add(key)
        at = page.version
    for key in cache.lacks(kind, listed, at, scope):
        add(key)
    return at


@dataclass
class Synchroniser:
    """Follows jobs and their `children`, kinds, in `namespaces`, or in those that have the labels
    of a `selector`, or in all of them. `notice` takes in what a watch shows, and `add` is told of
    every job for which a list shows something new. `unwatched` is told when nobody watches jobs,
    though they are served."""

    api: Api
    cache: Cache
    children: Collection[str]
    namespaces: tuple[str, ...]
    add: Callable[[Key], None]
    notice: Callable[[str, Object], object] = lambda event, body: None
    unwatched: Callable[[], None] = lambda: None
    selector: str = ""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _scopes: tuple[str | None, ...] = field(init=False)
    _awaited: set[str | None] = field(init=False)
    _at: dict[tuple[str, str | None], str] = field(default_factory=dict, init=False)
    _watched: set[str | None] = field(default_factory=set, init=False)
    _news: dict[str | None, asyncio.Event] = field(init=False)
    _waits: int = field(default=0, init=False)  # in a row for watches of jobs to begin

    def __post_init__(self) -> None:
        self._scopes = self.namespaces or (None,)
        self._awaited = set(self._scopes)
        self._news = {scope: asyncio.Event() for scope in self._scopes}

    def begin(self, scope: str | None) -> None:
        """Take in that a watch of jobs begins: what was before, it does not show."""
        self._watched.add(scope)
        self._waits = 0
        self._news[scope].set()

    def end(self) -> None:
        """Take in that nobody watches jobs."""
        self._watched.clear()
        for news in self._news.values():
            news.set()

    async def run(self) -> None:
        """Follow everything until cancelled; the gate opens once all has been listed."""
        parts = [*(self._follow(scope) for scope in self._scopes), self._follow_unwatched()]
        if self.selector:
            parts.append(self._follow_labels())
        await until_one_ends(*parts)

    async def list_all(self, scope: str | None) -> dict[str, str]:
        """List every kind of a namespace, or of all, whose objects are known then. Return as of
        which version they are, "" for a kind that is not served."""
        if self.selector and self.cache.chosen is None:
            await self._choose()
        closed = {scope} if scope else set(self.cache.closed)
        # Jobs come last, so that none seems childless.
        versions = {kind: await self._list(kind, scope) for kind in (*self.children, KIND)}
        for namespace in closed & self.cache.closed:
            log.info("namespace %s is read now", namespace)
            self.cache.closed.remove(namespace)
            self._add_all(namespace)
        if versions[KIND]:
            self._know(scope)
        return versions

    async def _follow(self, scope: str | None) -> None:
        """Know a namespace, or all; one that may not be read holds up no other."""
        failures, clock = 0, asyncio.get_running_loop().time
        while True:
            listed = inf
            try:
                for kind, version in (await self.list_all(scope)).items():
                    self._at[kind, scope] = version
                listed = clock()
                await until_one_ends(*(self._follow_kind(k, scope) for k in (*self.children, KIND)))
            except (ApiError, Unreachable) as error:
                if scope and _is(403, error):
                    self._close(scope, error)
                    await self.sleep(_LACKING_SECONDS)
                    continue
                log.warning("listing failed: %s", error)
            failures = 0 if clock() - listed > _CAP_SECONDS else failures + 1
            await self.sleep(_pause(failures))

    async def _follow_kind(self, kind: str, scope: str | None) -> None:
        """Know a kind's objects, listed or not served by now. Raises ApiError for a 403.

        A watch goes on from what it has shown. One that ends at once, again and again, is no reason
        to ask all the time.
        """
        place, failures, clock = (kind, scope), 0, asyncio.get_running_loop().time
        lacks = not self._at[place]
        while True:
            began, before = inf, self._at[place]
            try:
                self._at[place] = before or await self._list(kind, scope)
                if not self._at[place]:
                    lacks = True
                    await self.sleep(_LACKING_SECONDS)
                    continue
                if lacks:
                    lacks = False
                    self._is_served(kind, scope)
                began = clock()
                await (self._wait_for_jobs(scope) if kind == KIND else self._watch(kind, scope))
            except (ApiError, Unreachable) as error:
                if _is(403, error):
                    raise
                log.info("%s are watched anew: %s", kind, error)
                # A server that has too much to do needs no list beside.
                if isinstance(error, ApiError | Unreadable) and not _is(429, error):
                    self._at[place] = ""
            moved = self._at[place] != before or clock() - began > _CAP_SECONDS
            failures = 0 if moved else failures + 1
            if failures:
                await self.sleep(_pause(failures))

    async def _watch(self, kind: str, scope: str | None) -> None:
        at = self._at[kind, scope]
        async with aclosing(self.api.watch(kind, scope, SELECTOR, at)) as changes:
            async for change in changes:
                if change.body is not None:
                    self.notice("DELETED" if change.deleted else "MODIFIED", change.body)
                self._at[kind, scope] = change.version

    async def _wait_for_jobs(self, scope: str | None) -> None:
        """Wait until jobs have to be listed."""
        news = self._news[scope]
        while not news.is_set():
            with suppress(TimeoutError):
                seconds = _BEGIN_SECONDS * 2.0 ** min(self._waits, _MOST_WAITS)
                await asyncio.wait_for(news.wait(), seconds)
                break
            if scope not in self._watched:
                self._waits += 1
                self.unwatched()
        self._at[KIND, scope] = ""

    async def _list(self, kind: str, scope: str | None) -> str:
        """Return as of which version the kind's objects are known; "" if it is not served."""
        if kind == KIND and scope in self._news:
            self._news[scope].clear()
        selector = SELECTOR if kind in self.children else ""
        try:
            return await take_in(self.api, self.cache, kind, scope, selector, scope, self.add)
        except ApiError as error:
            if error.code != 404:
                raise
            return ""

    def _is_served(self, kind: str, scope: str | None) -> None:
        """Take in that a kind is served, which was not; who waits for it need not wait."""
        log.info("%s is served now", kind)
        if kind == KIND:
            self._know(scope)
            self.unwatched()
        self._add_all(scope)

    def _know(self, scope: str | None) -> None:
        """Take in that a namespace is known; once all are, decisions may be made."""
        self._awaited.discard(scope)
        if not self._awaited and not self.cache.synced:
            self.cache.synced = True
            self._add_all(None)

    def _add_all(self, namespace: str | None) -> None:
        for key, _ in list(self.cache.jobs()):
            if namespace in (None, key.namespace):
                self.add(key)

    def _close(self, namespace: str, error: Exception) -> None:
        if namespace not in self.cache.closed:
            log.warning("namespace %s may not be read, or is gone: %s", namespace, error)
        for key in self.cache.close(namespace):
            self.add(key)
        self._know(namespace)

    async def _follow_labels(self) -> None:
        """Know which namespaces have the labels."""
        while True:
            await self.sleep(_LACKING_SECONDS)
            if self._awaited:
                continue
            try:
                await self._choose()
                for namespace in sorted(self.cache.closed):
                    await self.list_all(namespace)
            except (ApiError, Unreachable) as error:
                log.warning("listing failed: %s", error)

    async def _follow_unwatched(self) -> None:
        """Know what became of objects without our label, of which the cache was told otherwise; and
        of those that were gone by the time it was."""
        while True:
            await self.sleep(_UNWATCHED_SECONDS)
            for body in self.cache.unwatched():
                try:
                    await self._look_at(body)
                except (ApiError, Unreachable) as error:
                    log.info("%s %s: %s", body["kind"], body["metadata"]["name"], error)

    async def _look_at(self, body: Object) -> None:
        metadata = body["metadata"]
        found = await self.api.get(body["kind"], metadata["namespace"], metadata["name"])
        key = None
        if found is None or found["metadata"]["uid"] != metadata["uid"]:
            self.cache.bury(body)
            key = key_of(body)
        elif (found["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER:
            self.cache.watched(body)
        else:
            key = self.cache.answered(found)
        if key:
            self.add(key)

    async def _choose(self) -> None:
        """Learn which namespaces have the labels; a new one is closed until it has been listed."""
        before, now = self.cache.chosen or set(), set[str]()
        async for page in pages(self.api, NAMESPACE, None, self.selector):
            now.update(item["metadata"]["name"] for item in page.items)
        for name in now ^ before:
            for key in self.cache.close(name):
                self.add(key)
        self.cache.chosen = now
        self.cache.closed &= now


def _is(code: int, error: Exception) -> bool:
    return isinstance(error, ApiError) and error.code == code


def _pause(failures: int) -> float:
    return min(_CAP_SECONDS, _BASE_SECONDS * 2.0 ** min(failures - 1, 32))

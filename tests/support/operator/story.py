"""A synchroniser at work on an API server that fails as a test tells it to."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Change, Listing, Unreachable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.sync import Synchroniser
from support.operator.backends import ONE_OBJECT
from support.operator.model.api_server import ModelApi
from support.operator.model.world import World, child_kinds

KEY = Key("team", "bot")
KINDS = child_kinds(ONE_OBJECT)
POLL, UNWATCHED = 3, 30  # seconds
EXPIRED = ApiError(410, "Expired", "too old resource version")


def world() -> World:
    made = World()
    made.add({"kind": KIND, "metadata": {"name": "bot", "namespace": "team"}})
    return made


class Faulty(ModelApi):
    """Fails the first lists; does not serve `missing` kinds; lets nobody read `forbidden`
    namespaces, and breaks down over those that are `broken`. Its watches show what a test puts into
    `shown`, by kind: changes, errors, and None for an end."""

    def __init__(self, of: World, failures: int = 0) -> None:
        super().__init__(of, lambda body: None)
        self.failures = failures
        self.failure: Exception = Unreachable("away")
        self.missing: set[str] = set()
        self.forbidden: set[str] = set()
        self.broken: set[str] = set()
        self.asked: list[tuple[str, str | None, str]] = []
        self.watched: list[tuple[str, str | None, str]] = []
        self.shown: dict[str, asyncio.Queue[Any]] = {kind: asyncio.Queue() for kind in KINDS}

    def _refuse(self, kind: str, namespace: str | None) -> None:
        if kind in self.missing:
            raise ApiError(404, "", "404 page not found")
        if namespace in self.forbidden and kind != "PyTorchJob":
            raise ApiError(403, "Forbidden", "the operator cannot list here")

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        self.asked.append((kind, namespace, selector))
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise self.failure
        self._refuse(kind, namespace)
        if namespace in self.broken:
            raise ApiError(500, "InternalError", "a conversion webhook is away")
        found = await super().list_objects(kind, namespace, selector)
        items = [i for i in found.items if namespace in (None, i["metadata"]["namespace"])]
        return Listing(tuple(items), found.version)

    async def watch(
        self, kind: str, namespace: str | None, selector: str, version: str
    ) -> AsyncGenerator[Change]:
        self.watched.append((kind, namespace, version))
        assert selector == "app.kubernetes.io/managed-by=finetune-operator"
        self._refuse(kind, namespace)
        while (what := await self.shown[kind].get()) is not None:
            if isinstance(what, Exception):
                raise what
            yield what


class Story:
    """A synchroniser at work, whose pauses take no time."""

    def __init__(self, namespaces: tuple[str, ...] = (), selector: str = "") -> None:
        self.world = world()
        self.world.add({"kind": KIND, "metadata": {"name": "other", "namespace": "b"}})
        self.api, self.cache = Faulty(self.world), Cache()
        self.added: list[str] = []
        self.noticed: list[tuple[str, str]] = []
        self.unwatched = 0
        self.slept: list[float] = []
        self.scopes = namespaces or (None,)
        self.sync = Synchroniser(
            self.api,
            self.cache,
            KINDS,
            namespaces,
            lambda key: self.added.append(key.name),
            lambda event, body: self.noticed.append((event, body["metadata"]["name"])),
            self._unwatched,
            selector,
            self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        if seconds != UNWATCHED:
            self.slept.append(seconds)
        await asyncio.sleep(0)

    def _unwatched(self) -> None:
        self.unwatched += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        for scope in self.scopes:
            self.sync.begin(scope)
        task = asyncio.create_task(self.sync.run())
        yield
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - the condition is the test's
                await asyncio.sleep(0)

    async def synced(self) -> None:
        await self.until(lambda: self.cache.synced)

    async def polls(self, times: int = 2) -> None:
        """Let it find out what changed, if it looks."""
        seen = self.slept.count(POLL)
        await self.until(lambda: self.slept.count(POLL) >= seen + times)

    async def watches(self, times: int, kind: str = "Lease") -> list[str]:
        """Return since which versions a kind was watched, once it is for the nth time."""

        def since() -> list[str]:
            return [version for k, _, version in self.api.watched if k == kind]

        await self.until(lambda: len(since()) >= times)
        return since()

    def jobs(self) -> set[str]:
        return {key.name for key, _ in self.cache.jobs()}

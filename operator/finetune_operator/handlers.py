"""The only kopf import: Kopf watches jobs and says that one changed; nothing else is its part.

No create, update or delete handlers, no annotations, no finalizers: those act on a change that they
may see twice or never. `on.event` merely fills the cache and names a job to look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

import aiohttp
import kopf

from finetune_api.job import GROUP, KIND, PLURAL, VERSION
from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.client import Cluster
from finetune_operator.cluster.sync import Synchroniser
from finetune_operator.cluster.together import until_one_ends
from finetune_operator.controller import Controller
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 2.0


async def run(settings: Settings) -> None:
    """Run the operator until it is signalled."""
    cluster = await Cluster.connect(resources(BACKEND.kinds))
    controller = Controller(settings, cluster, Cache(), BACKEND)
    watches = Watches(settings, controller, cluster)
    controller.sync.unwatched = watches.start_anew
    try:
        await until_one_ends(controller.run(), watches.run())
    finally:
        await cluster.close()


class Watches:
    """Kopf, started again whenever it ends though nobody told it to."""

    def __init__(self, settings: Settings, controller: Controller, cluster: Cluster) -> None:
        self._settings = settings
        self._sync = controller.sync
        self._cluster = cluster
        self._session: aiohttp.ClientSession | None = None
        self._registry = _registry(controller, self._login)
        self._stop = asyncio.Event()
        self._told_to_go = False

    def start_anew(self) -> None:
        """Look for what is served, and watch that."""
        self._stop.set()

    async def run(self) -> None:
        """Watch until the process is signalled."""
        while not self._told_to_go:
            self._stop.clear()
            try:
                await self._watch()
            except Exception:  # of Kopf, whatever it is
                log.warning("the watches ended, and start anew", exc_info=True)
            self._sync.end()
            with contextlib.suppress(TimeoutError):  # no pause for who was told to start anew
                await asyncio.wait_for(self._stop.wait(), _PAUSE_SECONDS)

    async def _watch(self) -> None:
        namespaces = self._settings.watch_namespaces
        tasks = await kopf.spawn_tasks(
            registry=self._registry,
            settings=_kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._stop,
            # Kopf's own guess fails where /etc/passwd does not know the user, as in the image.
            identity=socket.gethostname(),  # type: ignore[arg-type] # a NewType of Kopf's own
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # of which Kopf makes its own use
            asyncio.get_running_loop().add_signal_handler(number, self._go)
        try:
            await kopf.run_tasks(tasks, ignored=_Everyone())
        finally:
            await self._close()

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        await self._close()
        self._session = self._cluster.session(_list_nothing(self._sync))
        server = self._cluster.configuration.host
        return kopf.AiohttpSession(server=server, aiohttp_session=self._session)

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _go(self) -> None:
        self._told_to_go = True
        self._stop.set()


class _Everyone(frozenset[Any]):
    """All tasks: Kopf waits for those that it takes for its own, and cancels them."""

    def __contains__(self, _: object) -> bool:
        return True


class _Backoffs(Iterable[float]):
    """Pauses between tries of a request that is refused or not answered: it never gives up, so
    that one namespace's refusal does not end the others' watches."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 4.0), itertools.repeat(8.0))


def _registry(
    controller: Controller, login: Callable[..., Awaitable[kopf.AiohttpSession]]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def notice(event: Mapping[str, Any], **_: Any) -> None:
        raw = event["object"]
        body = {**raw, "metadata": {**raw["metadata"]}}  # Kopf works on the same object
        controller.notice(event["type"], body)

    kopf.on.login(registry=registry)(login)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id=f"see-{KIND}")(notice)
    return registry


def _list_nothing(sync: Synchroniser) -> aiohttp.ClientMiddlewareType:
    """Return what leaves Kopf's lists of jobs empty, but for as of when they are: of each of
    thousands of jobs it would make a task, and keep notes. What they lack is listed by `sync`, once
    a watch begins so."""

    async def shorten(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        *_, before, namespace, plural = ("", *request.url.parts)
        lists = plural == PLURAL and "watch" not in request.url.query
        if lists:  # no object has this name
            request.url = request.url.update_query(fieldSelector="metadata.name=-")
        answer = await send(request)
        if lists and answer.ok:
            sync.begin(namespace if before == "namespaces" else None)
        return answer

    return shorten


class _NothingHandled(kopf.MultiDiffBaseStorage):
    """What Kopf would annotate objects with to compare later states to; nothing of ours does."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Spare the deep copy of every object of every event."""
        return kopf.BodyEssence()


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NothingHandled([])
    settings.persistence.progress_storage = kopf.MultiProgressStorage([])
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 600
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    settings.process.ultimate_exiting_timeout = None  # it would kill who watches again by then
    settings.queueing.idle_timeout = 1
    return settings

"""The only kopf import: Kopf watches and says that something changed; nothing else is its part.

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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import kopf

from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.client import Cluster
from finetune_operator.controller import Controller, until_one_ends
from finetune_operator.job.names import SELECTOR
from finetune_operator.job.resources import children, resources
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 2.0


async def run(settings: Settings) -> None:
    """Run the operator until it is signalled."""
    cluster = await Cluster.connect(resources(BACKEND.kinds))
    controller = Controller(settings, cluster, Cache(), BACKEND)
    watches = Watches(settings, controller, cluster)
    controller.sync.served = lambda kind: watches.start_anew()
    try:
        await until_one_ends(controller.run(), watches.run())
    finally:
        await cluster.close()


class Watches:
    """Kopf, started again whenever it ends though nobody told it to: what the watches miss
    meanwhile, a list soon after finds."""

    def __init__(self, settings: Settings, controller: Controller, cluster: Cluster) -> None:
        self._settings = settings
        self._missed = controller.sync.miss
        self._registry = _registry(controller, cluster)
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
            except Exception:  # of Kopf, whatever it is: without watches the lists alone tell news
                log.warning("the watches ended, and start anew", exc_info=True)
            self._missed()  # what goes until new ones have begun, they never show
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
        await kopf.run_tasks(tasks, ignored=_Everyone())

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


def _registry(controller: Controller, cluster: Cluster) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        configuration = cluster.configuration
        header = await cluster.token() or ""
        scheme, _space, token = header.partition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=configuration.ca_cert_data,
            insecure=not configuration.verify_ssl,
            scheme=scheme or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    kopf.on.login(registry=registry)(login)
    for kind, resource in resources(BACKEND.kinds).items():
        if not resource.watched:
            continue
        kopf.on.event(
            resource.group, resource.version, resource.plural, registry=registry, id=f"see-{kind}"
        )(_noticer(controller, kind, resource.api_version))
    return registry


def _noticer(controller: Controller, kind: str, api_version: str) -> Any:
    async def notice(event: Mapping[str, Any], **_: Any) -> None:
        raw = event["object"]
        # Kopf works on the same objects; and items of a first list carry neither version nor kind.
        body = {**raw, "metadata": {**raw["metadata"]}, "apiVersion": api_version, "kind": kind}
        controller.notice(event["type"], body)

    return notice


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
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 600
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    settings.process.ultimate_exiting_timeout = None  # it would kill who watches again by then
    settings.queueing.idle_timeout = 1
    for resource in children(BACKEND.kinds).values():
        # A cluster has thousands of foreign pods, and a Lease per node that changes all the time.
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = (
            SELECTOR
        )
    return settings

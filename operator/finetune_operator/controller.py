"""The operator's parts put together, watches aside."""

from __future__ import annotations

import logging
import socket
import time
import uuid

from finetune_operator import logs
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.client import Cluster
from finetune_operator.cluster.election import Candidate, Election
from finetune_operator.cluster.queue import RetryLater, WorkQueue
from finetune_operator.cluster.sync import Synchroniser
from finetune_operator.cluster.together import until_one_ends
from finetune_operator.events import Recorder
from finetune_operator.job.backend import Backend
from finetune_operator.job.names import Object
from finetune_operator.job.resources import children
from finetune_operator.metrics import Metrics
from finetune_operator.probes import application, serve
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

_ELECTION_TIMEOUT_SECONDS = 3.0


class Controller:
    """Takes in what the watches show, and works on what that concerns."""

    def __init__(
        self, settings: Settings, cluster: Cluster, cache: Cache, backend: Backend
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._queue: WorkQueue[Key] = WorkQueue(self._handle, group=lambda key: key.namespace)
        self._election = _election(settings, cluster)
        self._leads = self._election.leads if self._election else lambda: True
        self.metrics = Metrics(cache, lambda: len(self._queue), self._leads, cluster.clock.now)
        cluster.observer = self.metrics.observe_request
        cluster.may_write = self._leads
        self.sync = Synchroniser(
            cluster,
            cache,
            children(backend.kinds),
            settings.watch_namespaces,
            self._queue.add,
            self.notice,
            selector=settings.watch_selector,
        )
        self._recorder = Recorder(cluster)
        self._reconciler = Reconciler(
            cluster,
            cache,
            settings,
            backend,
            clock=cluster.clock.now,
            recorder=self._recorder,
            on_attempt_end=lambda reason: self.metrics.attempts.labels(reason).inc(),
        )

    def notice(self, event: str | None, body: Object) -> None:
        """Take in one watch event; `event` is DELETED, or anything else for a state."""
        key = self._cache.remove(body) if event == "DELETED" else self._cache.put(body)
        if key is None or not self._cache.decides(key):
            return
        gone = key not in self._cache  # to be forgotten, whoever leads
        if gone or self._leads():
            self._queue.add(key)

    async def run(self) -> None:
        """Work until cancelled. Raises OSError if the port is taken."""
        app = application(self._cache, self.metrics)
        runner = await serve(app, self._settings.bind_address, self._settings.bind_port)
        parts = [
            self.sync.run(),
            self._queue.run(),
            self._recorder.run(),
        ]
        if self._election:
            parts.append(self._election.run(lambda: self._cache.synced, self._look_at_all))
        try:
            await until_one_ends(*parts)
        finally:
            if self._election:
                await self._election.leave()  # every other part has ended
            await runner.cleanup()

    def _look_at_all(self) -> None:
        for key, _ in list(self._cache.jobs()):
            self._queue.add(key)

    async def _handle(self, key: Key) -> float | None:
        # Who is elected, or may read a namespace again, looks at all its jobs.
        here = key in self._cache and self._cache.decides(key) and self._leads()
        if not here:
            self._reconciler.forget(key)
            self._queue.forget(key)
            return None
        with logs.about(key.namespace, key.name):
            return await self._pass(key)

    async def _pass(self, key: Key) -> float | None:
        started = time.monotonic()
        outcome = "done"
        try:
            return await self._reconciler.reconcile(key)
        except RetryLater:
            outcome = "retry"
            raise
        except Exception as error:  # one job's surprise must not end all the others
            outcome = "error"
            log.exception("a pass failed unexpectedly")
            raise RetryLater from error
        finally:
            self.metrics.passes.labels(outcome).inc()
            self.metrics.seconds.observe(time.monotonic() - started)


def _election(settings: Settings, cluster: Cluster) -> Election | None:
    if not settings.leader_lease:
        return None
    namespace, _, name = settings.leader_lease.partition("/")
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    return Election(cluster.apart(_ELECTION_TIMEOUT_SECONDS), Candidate(namespace, name, identity))

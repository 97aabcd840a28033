"""Prometheus metrics of the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_operator.cluster.cache import Cache
from finetune_operator.job_metrics import JobMetrics

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One registry per operator, so that tests can run several."""

    def __init__(
        self,
        cache: Cache,
        queue_length: Callable[[], int],
        leads: Callable[[], bool] = lambda: True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.registry = CollectorRegistry()
        self.passes = Counter(
            "finetune_operator_reconciles",
            "Passes over a job, by how they ended",
            ["outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "finetune_operator_reconcile_seconds",
            "Duration of a pass over a job",
            registry=self.registry,
        )
        self.attempts = Counter(
            "finetune_operator_attempts_ended",
            "Attempts that ended, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.requests = Counter(
            "finetune_operator_api_requests",
            "Requests to the API server, watches not counted",
            ["verb", "kind", "code"],
            registry=self.registry,
        )
        for name, words, value in (
            ("queue_length", "Jobs that wait for a pass", queue_length),
            ("leader", "1 if this operator works, 0 if it stands by for another", leads),
        ):
            gauge = Gauge(f"finetune_operator_{name}", words, registry=self.registry)
            gauge.set_function(value)
        self.registry.register(_Refused(cache))
        self.registry.register(JobMetrics(cache, clock, leads))

    def observe_request(self, verb: str, kind: str, code: int) -> None:
        """Count an answer of the API server."""
        self.requests.labels(verb, kind, str(code)).inc()

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)


class _Refused(Collector):
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Name each watched namespace that the operator may not read."""
        family = GaugeMetricFamily(
            "finetune_operator_namespace_refused",
            "1 for a watched namespace that is gone, or that the operator may not read",
            labels=["namespace"],
        )
        for namespace in sorted(self._cache.closed):
            family.add_metric([namespace], 1)
        yield family

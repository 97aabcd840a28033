"""What Prometheus is told of each job: by its status alone, and never a counter that goes back."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from finetune_api.job import KIND
from finetune_api.status import Attempt
from finetune_operator.cluster.cache import Cache
from finetune_operator.job_metrics import JobMetrics
from finetune_operator.metrics import Metrics
from support.operator.values import NOW, at, attempt, stamp

Json = Any
DOCS = Path(__file__).parents[3] / "docs" / "operations.md"
TRAINING = {"attempt": 1, "phase": "Train", "summary": "step 30 of 120", "done": 30, "total": 120}


def condition(kind: str, truth: str, reason: str) -> Json:
    since = {"lastTransitionTime": stamp(0)}
    return {"type": kind, "status": truth, "reason": reason, "message": "m", **since}


def body(*conditions: Json, name: str = "bot", version: int = 1, **status: Json) -> Json:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(version)}
    return {
        "kind": KIND,
        "metadata": metadata,
        "status": {"conditions": list(conditions), "plan": PLAN, **status},
    }


PLAN = {"workers": 2, "processes": 8, "gpus": 8}
RUNNING = condition("Succeeded", "Unknown", "Running")


def record(number: int = 1, **fields: Any) -> Json:
    return attempt(number, **fields).model_dump(mode="json", by_alias=True, exclude_none=True)


def ended(number: int, begun: float, end: float, **fields: Any) -> Json:
    times = {"running_time": stamp(begun), "end_time": stamp(end)}
    return record(number, **times, **{"state": "Failed", "reason": "Evicted", **fields})


def running(number: int, begun: float, **fields: Any) -> Json:
    return record(number, running_time=stamp(begun), **fields)


class Scraped:
    """The series of a cache at a time, by family and labels other than the job's own."""

    def __init__(self, *bodies: Json, leads: bool = True) -> None:
        self.cache = Cache()
        self.now, self.leads = NOW, leads
        self.registry = CollectorRegistry()
        self.registry.register(JobMetrics(self.cache, lambda: self.now, lambda: self.leads))
        for one in bodies:
            self.cache.put(one)

    def series(self, name: str = "bot") -> dict[str, float]:
        job = {"namespace": "team", "name": name}
        found = {}
        for family in self.registry.collect():
            for sample in family.samples:
                assert set(job) <= set(sample.labels)
                if job.items() <= sample.labels.items():
                    others = [v for k, v in sample.labels.items() if k not in job]
                    found[" ".join([sample.name.removeprefix("finetune_job_"), *others])] = (
                        sample.value
                    )
        return found


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ((), "Waiting  None"),
        ((condition("Succeeded", "Unknown", "Unschedulable"),), "Waiting Unschedulable Wait"),
        ((RUNNING,), "Running Running None"),
        (
            (
                condition("Stalled", "True", "InvalidSpec"),
                condition("Succeeded", "Unknown", "InvalidSpec"),
            ),
            "Stalled InvalidSpec Never",
        ),
        (
            (
                condition("Succeeded", "Unknown", "Suspended"),
                condition("Suspended", "True", "Suspended"),
            ),
            "Suspended Suspended None",
        ),
        ((condition("Succeeded", "True", "Succeeded"),), "Succeeded Succeeded None"),
        (
            (
                condition("Stalled", "True", "Evicted"),
                condition("Succeeded", "False", "Evicted"),
            ),
            "Failed Evicted Infrastructure",
        ),
        ((condition("Succeeded", "False", "Fancy"),), "Failed Fancy None"),
    ],
)
def test_one_series_says_where_a_job_is_why_and_what_follows(
    conditions: tuple[Json, ...], state: str
) -> None:
    told = [s for s in Scraped(body(*conditions)).series().items() if s[0].startswith("state ")]
    assert told == [(f"state {state}", 1.0)]


def test_a_run_tells_its_gpus_and_how_far_it_is() -> None:
    report = {**TRAINING, "step": 30, "lastReportTime": stamp(50)}
    scraped = Scraped(body(RUNNING, attempts=[running(1, 20)], progress=report))
    scraped.now = at(60.9)
    assert scraped.series() == {
        "state Running Running None": 1,
        "attempts": 1,
        "gpus": 8,
        "gpu_seconds_total": 320,
        "gpu_seconds_lost_total": 0,
        "steps": 30,
        "progress_ratio Train": 0.25,
        "last_report_timestamp_seconds": at(50).timestamp(),
    }


def test_what_is_not_known_has_no_series() -> None:
    assert set(Scraped(body(RUNNING, attempts=[record()])).series()) == {
        *("state Running Running None", "attempts", "gpus"),
        *("gpu_seconds_total", "gpu_seconds_lost_total"),
    }
    report = {**TRAINING, "total": None, "lastReportTime": "the year 0"}
    told = Scraped(body(RUNNING, attempts=[running(1, 0)], progress=report)).series()
    assert not {"steps", "progress_ratio Train", "last_report_timestamp_seconds"} & set(told)
    of_the_last = {**TRAINING, "step": 9, "lastReportTime": stamp(1)}
    begun = [ended(1, 0, 10), running(2, 20)]
    assert "steps" not in Scraped(body(RUNNING, attempts=begun, progress=of_the_last)).series()


def test_pods_that_have_not_all_run_take_no_gpus_yet() -> None:
    scraped = Scraped(body(RUNNING, attempts=[record()]))
    scraped.now = at(100)
    assert scraped.series()["gpus"] == 0
    assert scraped.series()["gpu_seconds_total"] == 0


def test_a_job_that_has_finished_tells_what_it_took_and_no_progress() -> None:
    report = {**TRAINING, "step": 30, "lastReportTime": stamp(50)}
    done = condition("Succeeded", "True", "Succeeded")
    attempts = [
        ended(1, 0, 100, last_step=50, lost_steps=10),
        ended(2, 150, 250, reason="Succeeded"),
    ]
    scraped = Scraped(body(done, attempts=attempts, progress={**report, "attempt": 2}))
    scraped.now = at(10_000)
    assert scraped.series() == {
        "state Succeeded Succeeded None": 1,
        "attempts": 2,
        "gpu_seconds_total": 1600,
        "gpu_seconds_lost_total": 160,
    }


LOST = {"last_step": 50, "lost_steps": 10}


@pytest.mark.parametrize(
    ("first", "lost"),
    [
        (ended(1, 0, 100, **LOST), 160),
        (ended(1, 0, 100, last_step=50, lost_steps=0), 0),
        (ended(1, 0, 100, last_step=50), 0),
        (ended(1, 0, 100, last_step=50, resumed_step=40, lost_steps=5), 400),
        (ended(1, 0, 100, last_step=50, lost_steps=99), 800),
        (ended(1, 0, 100), 800),
        (ended(1, 0, 100, last_step=40, resumed_step=40, lost_steps=0), 800),
        (ended(1, 0, 100, state="Suspended", reason="Suspended", **LOST), 160),
        (ended(1, 100, 0, **LOST), 0),
        (record(1, end_time=stamp(9), state="Failed", reason="PodLost"), 0),
    ],
)
def test_lost_is_the_share_of_the_steps_that_are_in_no_checkpoint(first: Json, lost: float) -> None:
    following = running(2, 150, resumed_step=40)
    told = Scraped(body(RUNNING, attempts=[first, following])).series()
    assert told["gpu_seconds_lost_total"] == lost


def lost_with(following: Attempt | Json, *conditions: Json, **status: Json) -> float:
    attempts = [ended(1, 0, 100, **LOST), *([following] if following else [])]
    told = Scraped(body(*conditions or [RUNNING], attempts=attempts, **status)).series()
    return told["gpu_seconds_lost_total"]


def test_a_loss_is_counted_once_nothing_can_correct_it() -> None:
    """The next attempt tells where it began; only then is it known what the last one lost."""
    report = {**TRAINING, "attempt": 2, "lastReportTime": stamp(160)}
    assert lost_with(None) == 0
    assert lost_with(running(2, 150)) == 0
    assert lost_with(running(2, 150), progress=report) == 0
    assert lost_with(running(2, 150), progress={**report, "attempt": 1, "step": 1}) == 0
    assert lost_with(running(2, 150), progress={**report, "step": 1}) == 160
    assert lost_with(running(2, 150, resumed_step=0)) == 160
    assert lost_with(ended(2, 150, 160, last_step=1, lost_steps=0)) == 160
    failed = condition("Succeeded", "False", "Evicted")
    assert lost_with(None, failed) == 160
    let_go_on = {"retry": {"retries": 1, "afterAttempt": 1}}
    assert lost_with(None, **let_go_on) == 160, "it was told when the job had failed"
    assert lost_with(None, retry={"retries": 1, "afterAttempt": 0}) == 0


def test_the_counter_does_not_go_back_when_an_attempt_ends() -> None:
    scraped = Scraped(body(RUNNING, attempts=[running(1, 0)]))
    scraped.now = at(99.9)
    before = scraped.series()["gpu_seconds_total"]
    scraped.cache.put(body(RUNNING, version=2, attempts=[ended(1, 0, 99)]))
    assert scraped.series()["gpu_seconds_total"] == before == 792
    scraped.cache.put(body(RUNNING, version=3, attempts=[running(1, 500)]))
    assert scraped.series()["gpu_seconds_total"] == 0, "a clock that is behind takes nothing"


def test_series_go_with_their_job_and_with_the_lead() -> None:
    other = body(name="other")
    scraped = Scraped(body(RUNNING), other)
    assert scraped.series("other")
    scraped.cache.remove(other)
    assert scraped.series("other") == {}
    assert scraped.series("bot")
    scraped.leads = False
    assert scraped.series("bot") == {}


def test_a_job_of_the_same_name_has_figures_of_its_own() -> None:
    scraped = Scraped(body(RUNNING))
    assert "state Running Running None" in scraped.series()
    again = body()
    again["metadata"]["uid"] = "another"
    scraped.cache.remove(body(RUNNING))
    scraped.cache.put(again)
    assert "state Waiting  None" in scraped.series()


@pytest.mark.parametrize(
    "status",
    [
        {"attempts": "many"},
        {"plan": {**PLAN, "gpus": 10**400}},
        {"attempts": [running(1, 0)], "progress": {**TRAINING, "lastReportTime": 7}},
    ],
)
def test_a_status_of_another_hand_hides_no_other_job(status: Json) -> None:
    scraped = Scraped(body(RUNNING, name="edited", **status), body(RUNNING))
    assert scraped.series("edited")["state Running Running None"] == 1
    assert scraped.series("bot")


def test_prometheus_can_read_it() -> None:
    cache = Cache()
    cache.put(body(RUNNING, attempts=[running(1, 0)]))
    text = Metrics(cache, lambda: 0).render().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["finetune_job_gpu_seconds"].type == "counter"
    assert families["finetune_job_gpus"].type == "gauge"
    assert families["finetune_job_gpu_seconds"].samples[0].value > timedelta(days=1).total_seconds()


def test_the_documentation_lists_what_is_exported() -> None:
    documented = set(re.findall(r"`(finetune_\w+)", DOCS.read_text()))
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics(Cache(), lambda: 0).registry.collect()
    }
    assert documented == exported

"""Pods that run and do nothing, and others that do and are not heard of: an hour each."""

import copy
import json
from datetime import timedelta
from typing import Any

import pytest

from finetune_contract.progress import ANNOTATION
from finetune_operator.cluster.api import ApiError
from support.operator.model.api_server import reconciler_on
from support.operator.passes import KEY, SETTINGS, Bench

POD = "bot-a1-master-0"
TICK = 15  # seconds


class Run(Bench):
    """A job of one pod, whose trainer reports and logs as told."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0
        self.reports = self.moves_on = self.logs = True

    async def start(self) -> None:
        for _ in range(4):
            await self.do_pass()
            self.world.train_operator()
            self.world.kubelet(POD)
        assert self.status()["attempts"][0]["state"] == "Running"

    async def live(self, seconds: int) -> None:
        """Let time pass; the trainer does what it does, and the operator looks."""
        for _ in range(0, seconds, TICK):
            self.world.now += timedelta(seconds=TICK)
            self.moves += self.moves_on
            if self.reports and self.end() is None:
                self.report()
            if self.logs:
                self.world.logged[POD] = self.world.now
            await self.do_pass()

    def report(self) -> None:
        body = copy.deepcopy(self.world.find("Lease", "bot-a1"))
        told = {"phase": "Train", "moves": self.moves, "stallTimeoutSeconds": 600}
        body["metadata"]["annotations"][ANNOTATION] = json.dumps(told)
        body["spec"] = {"renewTime": self.world.stamp()}
        self.world.store(body)

    def end(self) -> Any:
        return self.status()["attempts"][0].get("reason")


@pytest.fixture
async def run() -> Run:
    run = Run()
    await run.start()
    await run.live(120)
    return run


async def test_what_is_frozen_as_a_whole_ends_and_is_tried_again(run: Run) -> None:
    run.reports = run.moves_on = run.logs = False
    await run.live(900)
    assert run.end() is None, "the launcher has its chance first"
    await run.live(60)
    assert run.end() == "Stalled"
    run.world.collect()
    run.world.kubelet(POD)
    await run.live(30)
    assert [a["number"] for a in run.status()["attempts"]] == [1, 2]


async def test_ranks_that_stand_still_end_though_they_report(run: Run) -> None:
    run.moves_on = False
    await run.live(960)
    assert run.end() == "Stalled"


async def test_a_run_that_can_not_report_goes_on(run: Run) -> None:
    run.reports = False
    await run.live(7200)
    assert run.end() is None
    run.reports = True
    await run.live(60)
    assert run.end() is None
    run.reports = run.logs = False
    await run.live(960)
    assert run.end() == "Stalled"


async def test_slow_steps_are_no_standstill(run: Run) -> None:
    run.moves_on = False
    for _ in range(4):
        await run.live(885)
        run.moves += 1
    assert run.end() is None


async def test_a_log_that_can_not_be_read_says_nothing(run: Run) -> None:
    async def refused(*_: Any) -> bool:
        raise ApiError(403, "Forbidden", "pods/log")

    run.api.has_logged = refused  # type: ignore[method-assign]
    run.reports = run.moves_on = run.logs = False
    await run.live(3000)
    assert run.end() is None
    assert run.told("Ready")[0] == "Unknown", "passes go on"


async def test_an_operator_that_starts_begins_to_watch_anew(run: Run) -> None:
    run.reports = run.moves_on = run.logs = False
    await run.live(900)
    run.reconciler = reconciler_on(run.api, run.cache, SETTINGS)
    await run.live(900)
    assert run.end() is None
    await run.live(60)
    assert run.end() == "Stalled"


async def test_news_that_the_watch_has_not_shown_is_read_before_an_end(run: Run) -> None:
    """What the cache shows is old: the truth is listed before anything follows from silence."""
    run.reports = run.moves_on = run.logs = False
    await run.live(900)
    run.world.now += timedelta(seconds=60)
    run.moves += 1
    run.report()
    await run.reconciler.reconcile(KEY)
    assert run.end() is None

"""An operator at work in a Cluster whose time passes: who sees what, after how many seconds.

Every second each actor does its part: the trainer steps, reports and saves, training-operator makes
pods, kubelets start and remove them, and the watches show it all. Passes are done by the operator's
own queue, when it is told of something or has asked for it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.clock import ServerClock
from finetune_operator.controller import Controller
from finetune_operator.settings import Settings
from support.faults.cluster import Cluster, Server
from support.operator.jobs import bot_job
from support.operator.model.invariants import check_the_end, condition
from support.operator.model.trainers import trains

Json = Any
SETTINGS = Settings(trainer_image="trainer:1")
REPORT_STEPS = 5  # a step takes a second
CHECKPOINT_STEPS = 10
STRUCK_AT = 25  # steps
FINISHED = ("True", "False")


class Day:
    """One job's day. `spec` replaces or adds stanzas of its spec, `settings` the operator's."""

    def __init__(self, spec: Json, settings: Json = None) -> None:
        self.world = Cluster()
        self._began = self.world.now
        self.api = Server(self.world)
        self.api.clock = ServerClock(self.now)
        self.at_work = True  # the trainer gets on
        self.struck = self._began  # when the fault came
        self._settings = replace(SETTINGS, **(settings or {}))
        self._plans: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self.world.add(bot_job(**{"workers": {"replicas": 2}, **spec}))
        self._tasks: list[asyncio.Task[None]] = []
        self.controllers: list[Controller] = []
        self.start_operator()

    def start_operator(self, leads: Callable[[], bool] = lambda: True) -> Controller:
        """Start an operator that knows nothing yet."""
        api: Any = self.api
        made = Controller(self._settings, api, Cache(), self.world.backend)
        made._reconciler.lookout._clock = asyncio.get_running_loop().time
        made._leads = leads
        self.controllers.append(made)
        self.do(made.sync.run(), made._queue.run(), made._recorder.run())
        return made

    def do(self, *parts: Coroutine[Any, Any, None]) -> None:
        """Do something beside all else, until operators are killed."""
        self._tasks += [asyncio.create_task(part) for part in parts]

    def kill_operators(self) -> None:
        """Let nothing be done any more, and nothing be handed over."""
        self.controllers.clear()
        for task in self._tasks:
            task.cancel()

    async def over(self) -> None:
        self.kill_operators()
        for end in await asyncio.gather(*self._tasks, return_exceptions=True):
            if end is not None and not isinstance(end, asyncio.CancelledError):
                raise AssertionError("a part of the operator ended") from end

    def now(self) -> datetime:
        return self._began + timedelta(seconds=asyncio.get_running_loop().time())

    async def seconds(self, count: float) -> None:
        for _ in range(round(count)):
            await self._second()

    async def until(self, there: Callable[[], bool], limit: int = 900) -> bool:
        """Let time pass until something is there; tell whether it is."""
        for _ in range(limit):
            if there():
                return True
            await self._second()
        return there()

    def once(self, there: Callable[[], bool], do: Callable[[], None]) -> None:
        """Do something once, as soon as something is there."""
        self._plans.append((there, do))

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        at = self.now() + timedelta(seconds=seconds)
        self.once(lambda: self.now() >= at, do)

    def _do_plans(self) -> None:
        due = [plan for plan in self._plans if plan[0]()]
        self._plans = [plan for plan in self._plans if plan not in due]
        for _, do in due:
            do()

    async def _second(self) -> None:
        world = self.world
        world.now = self.now()
        self._do_plans()
        self._train()
        world.collect()
        world.train_operator()
        for pod in world.all("Pod"):
            world.kubelet(pod["metadata"]["name"])
        for kind in list(world.pending):
            for event, body in world.deliveries(kind, 1_000):
                for controller in self.controllers:
                    controller.notice(event, copy.deepcopy(body))
        await asyncio.sleep(1)

    def _train(self) -> None:
        second = int((self.now() - self._began).total_seconds())
        if not self.at_work or not self.trains() or second % REPORT_STEPS:
            return
        step = self.world.steps[self.attempt] + REPORT_STEPS
        self.world.train(self.pod(0), REPORT_STEPS, save=step % CHECKPOINT_STEPS == 0)

    def trains(self) -> bool:
        """Tell whether all of the newest attempt's pods run."""
        workload = self.world.find("PyTorchJob", f"bot-a{self.attempt}")
        return (
            len([p for p in self.world.pods_of(workload) if trains(p)]) == 2 if workload else False
        )

    @property
    def status(self) -> Json:
        return self.world.job().get("status", {})

    @property
    def attempts(self) -> list[Json]:
        return list(self.status.get("attempts") or [])

    @property
    def attempt(self) -> int:
        """Return the newest attempt's number."""
        return len(self.attempts) or 1

    @property
    def step(self) -> int:
        """Return the steps that the newest attempt has done."""
        return self.world.steps.get(self.attempt, 0)

    def pod(self, rank: int) -> str:
        """Return the name of one of the newest attempt's pods."""
        return self.world.backend.pod_name(f"bot-a{self.attempt}", rank)

    def finished(self) -> bool:
        return condition(self.world.job(), "Succeeded") in FINISHED

    async def end_well(self) -> None:
        """Let what runs succeed; then nothing is held, and all is as it is to be."""
        for rank in (1, 0):
            self.world.end(self.pod(rank), "Succeeded")
        assert await self.until(self.finished, 40), self.status

    async def check_the_end(self) -> None:
        """A job that is over holds nothing, and status says what became of it."""
        await self.seconds(60)
        check_the_end(self.world)

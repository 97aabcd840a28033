"""Schedules of disorder: one operator after another in one World, then peace."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

from finetune_api.job import KIND
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.queue import RetryLater
from finetune_operator.cluster.sync import Synchroniser
from finetune_operator.settings import Settings
from support.operator.backends import ONE_OBJECT, Played
from support.operator.jobs import bot_job
from support.operator.model.api_server import Crash, Fault, ModelApi, reconciler_on
from support.operator.model.invariants import (
    FENCE,
    check_the_end,
    condition,
    may_create,
    may_follow,
)
from support.operator.model.world import GRACE, World, child_kinds

Json = Any
Schedule = list[tuple[str, Any]]
KEY = Key("team", "bot")
QUIET = 6  # turns of 7 seconds: longer than what has ended is left alone
SETTINGS = Settings(
    trainer_image="trainer:1",
    fence_timeout_seconds=FENCE,
    retry_base_seconds=10,
    retry_cap_seconds=20,
    max_infrastructure_attempts=4,
)
CODE = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}
WORKLOAD = "workload"  # in a schedule, the kind that the backend has for it
Pod = str | tuple[int, int]  # in a schedule: by name, or attempt and rank
TURN = ["deliver all", "pass", "training-operator", "start pods", "collect"]


class Simulation:
    """One operator after another in one World."""

    def __init__(self, code: bool = False, backend: Played = ONE_OBJECT) -> None:
        """`code`: the job has a reward function of its own."""
        self.world = World(backend)
        self._kinds = child_kinds(backend)
        self._loop = asyncio.new_event_loop()
        spec = {"workers": {"replicas": 2}, "training": {"microBatchSize": 4}}
        method = {"method": {"type": "GRPO", "grpo": {"rewards": [CODE]}}} if code else {}
        self.world.add(bot_job(**spec, **method, runPolicy=_policy(False)))
        self.start_operator()

    def close(self) -> None:
        self._loop.close()

    def run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def start_operator(self) -> None:
        """A new process: nothing remembered, everything listed."""
        self.cache = Cache()
        self.api = ModelApi(
            self.world, partial(may_create, self.world), partial(may_follow, self.world)
        )
        self.reconciler = reconciler_on(self.api, self.cache, SETTINGS)
        for queue in self.world.pending.values():
            queue.clear()
        self.relist()

    def relist(self) -> None:
        self.run(Synchroniser(self.api, self.cache, self._kinds, (), lambda key: None).relist())

    def do_pass(self) -> None:
        try:
            self.run(self.reconciler.reconcile(KEY))
        except RetryLater:
            pass
        except Crash:
            self.start_operator()

    def deliver(self, kind: str, count: int) -> None:
        for event, body in self.world.deliveries(kind, count):
            self.tell(event, body)

    def deliver_all(self) -> None:
        for kind in (KIND, *self._kinds):
            self.deliver(kind, 1_000)

    def tell(self, event: str, body: Json) -> None:
        if event == "DELETED":
            self.cache.remove(body)
        else:
            self.cache.put(body)

    def repeat(self, kind: str, index: int) -> None:
        told = self.world.told[kind]
        if told:
            event, body = told[index % len(told)]
            self.tell(event, {**body, "metadata": dict(body["metadata"])})

    def kind(self, kind: str) -> str:
        """Return the kind that a schedule means."""
        return self.world.backend.workload if kind == WORKLOAD else kind

    def pod(self, pod: Pod) -> str:
        """Return the name of the pod that a schedule means."""
        if isinstance(pod, str):
            return pod
        attempt, rank = pod
        return self.world.backend.pod_name(f"bot-a{attempt}", rank)

    def start_pods(self) -> None:
        for pod in self.world.all("Pod"):
            self.world.kubelet(pod["metadata"]["name"])

    def touch(self) -> None:
        """Give the job a new version that changes nothing."""
        job = self.world.job()
        self.world.store({**job, "metadata": {**job["metadata"]}})

    def make_peace(self) -> None:
        """No more faults: everyone does their part until the job is finished."""
        self.api.fault = None
        job = self.world.job()
        if job["spec"].get("runPolicy", {}).get("suspend"):
            self.edit(suspend=False)
        quiet = 0
        for _ in range(120):
            before = self.world.version
            self.settle()
            quiet = quiet + 1 if self.finished() and self.world.version == before else 0
            if quiet == QUIET:
                return
            self.world.now += timedelta(seconds=7)
        raise AssertionError(f"never finished: {self.world.job().get('status')}")

    def settle(self) -> None:
        self.world.lose_nodes()
        self.world.collect()
        self.world.train_operator()
        self.start_pods()
        self.deliver_all()
        self.do_pass()
        self.do_pass()
        for pod in self.world.all("Pod"):
            self.world.end(pod["metadata"]["name"], "Succeeded")

    def edit(self, suspend: bool) -> None:
        retries = self.world.job()["spec"]["runPolicy"].get("retries", 0)
        self._edit({**_policy(suspend), "retries": retries})

    def _edit(self, policy: Json) -> None:
        job = self.world.job()
        changed = {**job, "metadata": {**job["metadata"]}, "spec": {**job["spec"]}}
        changed["spec"]["runPolicy"] = policy
        changed["metadata"]["generation"] += 1
        self.world.store(changed)

    def retry(self) -> None:
        """The user raises runPolicy.retries, whether or not the job has failed."""
        job = self.world.job()
        policy = job["spec"]["runPolicy"]
        self._edit({**policy, "retries": policy.get("retries", 0) + 1})

    def finished(self) -> bool:
        return condition(self.world.job(), "Succeeded") in ("True", "False")

    def check_silence(self) -> None:
        """Converged: no pass writes, a relist and a new operator included."""
        before = self.world.writes
        for _ in range(3):
            self.do_pass()
            self.world.now += timedelta(hours=1)
        self.relist()
        self.do_pass()
        self.start_operator()
        self.do_pass()
        assert self.world.writes == before


def _policy(suspend: bool) -> Json:
    return {"suspend": suspend, "terminationGracePeriodSeconds": GRACE}


def take(simulation: Simulation, name: str, argument: Any) -> None:
    world = simulation.world
    match name:
        case "turn":
            for part in argument:
                take(simulation, part, None)
        case "pass":
            simulation.do_pass()
        case "deliver":
            kind, count = argument
            simulation.deliver(simulation.kind(kind), count)
        case "deliver all":
            simulation.deliver_all()
        case "repeat":
            kind, index = argument
            simulation.repeat(simulation.kind(kind), index)
        case "gap":
            world.pending[simulation.kind(argument)].clear()
        case "relist":
            simulation.relist()
        case "fault":
            simulation.api.fault = Fault(argument.write, argument.after, argument.crash)
        case "crash once the workload is made":
            # The first attempt's; the status and six objects come before those of the backend.
            writes = 7 + len(world.backend.kinds)
            simulation.api.fault = Fault(writes - 1, after=True, crash=True)
        case "training-operator":
            world.train_operator()
        case "start pods":
            simulation.start_pods()
        case "end":
            pod, reason = argument
            world.end(simulation.pod(pod), reason)
        case "unreachable":
            world.unreachable.add(simulation.pod(argument))
        case "delete pod":
            world.delete_pod(simulation.pod(argument))
        case "evict":
            pod, why = argument
            world.delete_pod(simulation.pod(pod), why)
        case "delete workload" if world.find(kind := world.backend.workload, f"bot-a{argument}"):
            world.drop(kind, f"bot-a{argument}")
        case "train":
            pod, steps, save = argument
            world.train(simulation.pod(pod), steps, save)
        case "polite":
            world.polite = argument
        case "sidecars":
            world.sidecars = argument
        case "collect":
            world.collect()
        case "suspend" if not simulation.finished():
            simulation.edit(argument)
        case "retry":
            simulation.retry()
        case "label":
            simulation.touch()
        case "wait":
            world.now += timedelta(seconds=argument)


def play(schedule: Schedule, code: bool = False, backend: Played = ONE_OBJECT) -> Json:
    simulation = Simulation(code, backend)
    try:
        for name, argument in schedule:
            take(simulation, name, argument)
        # A gap is closed by the next periodic list.
        simulation.relist()
        simulation.make_peace()
        check_the_end(simulation.world)
        simulation.check_silence()
        return simulation.world.job()
    finally:
        simulation.close()

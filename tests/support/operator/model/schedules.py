"""Schedules of disorder: operators in one World, one after another or side by side, then peace."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from support.operator.backends import ONE_OBJECT, Played
from support.operator.jobs import bot_job
from support.operator.model.api_server import Crash
from support.operator.model.invariants import condition, may_run, obeys
from support.operator.model.leases import LeaseServer
from support.operator.model.operators import KEY, Operator
from support.operator.model.store import Watch
from support.operator.model.strangers import leave
from support.operator.model.world import GRACE, World

Json = Any
Schedule = list[tuple[str, Any]]
QUIET = 6  # turns of 7 seconds: longer than what has ended is left alone
PATIENCE = 160  # turns in which a job that is left in peace finishes
REFUSALS = 8  # passes in a row from which on what holds nevertheless is done
CODE = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}
WORKLOAD = "workload"  # in a schedule, the kind that the backend has for it
Pod = str | tuple[int, int]  # in a schedule: by name, or attempt and rank
TURN = ["elect", "deliver all", "pass", "training-operator", "start pods", "collect"]


class Simulation:
    """A job, operators and all others in one World. Of two operators one is spoken of at a time."""

    def __init__(self, code: bool = False, backend: Played = ONE_OBJECT, two: bool = False) -> None:
        """`code`: the job has a reward function of its own; `two` operators: one leads."""
        self.world = World(backend=backend, watches=[Watch() for _ in range(1 + two)])
        self.world.on_start = lambda pod: may_run(self.world, pod)
        self._loop = asyncio.new_event_loop()
        self._lease = LeaseServer() if two else None
        self._ghosts: list[Operator] = []  # dead processes
        spec = {"workers": {"replicas": 2}, "training": {"microBatchSize": 4}}
        method = {"method": {"type": "GRPO", "grpo": {"rewards": [CODE]}}} if code else {}
        policy = {"suspend": False, "terminationGracePeriodSeconds": GRACE}
        self.fate = "Succeeded"  # how trainers that are left alone end
        self.world.add(bot_job(**spec, **method, runPolicy=policy))
        self._operators = [self._started(watch) for watch in self.world.watches]

    def _started(self, watch: Watch, ahead: timedelta = timedelta()) -> Operator:
        name = f"operator-{len(self._ghosts)}-{self.world.watches.index(watch)}"
        return Operator(self.world, watch, self._loop, name, self._lease, ahead)

    @property
    def operator(self) -> Operator:
        """Return the operator that is spoken of."""
        return self._operators[0]

    def swap(self) -> None:
        """Speak of the other operator from now on."""
        self._operators.reverse()

    def restart(self, ahead: timedelta = timedelta()) -> None:
        """Start the operator's process anew, on a machine whose clock is as far ahead."""
        self.operator.die()
        self._ghosts.append(self.operator)
        self._operators[0] = self._started(self.operator.watch, ahead)

    def close(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def do_pass(self) -> None:
        operator = self.operator
        try:
            done = operator.do_pass()
        except Crash:
            self.restart()
            return
        job = operator.cache.job(KEY)
        api = operator.api
        troubled = api.outage or api.fault or not operator.leads()
        if job is not None and (done or (operator.failed > REFUSALS and not troubled)):
            obeys(self.world, job, operator.api.clock.now())

    def arrive(self) -> None:
        """Let every write that is still on its way arrive."""
        for operator in (*self._ghosts, *self._operators):
            try:
                operator.arrive()
            except Crash:
                if operator is self.operator:
                    self.restart()

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

    def edit(self, **policy: Any) -> None:
        """Change fields of spec.runPolicy; None takes one away."""
        job = self.world.job()
        changed = {**job, "metadata": {**job["metadata"]}, "spec": {**job["spec"]}}
        fields = {**job["spec"]["runPolicy"], **policy}
        changed["spec"]["runPolicy"] = {k: v for k, v in fields.items() if v is not None}
        changed["metadata"]["generation"] += 1
        self.world.store(changed)

    def retry(self) -> None:
        """The user raises runPolicy.retries, whether or not the job has failed."""
        self.edit(retries=self.world.job()["spec"]["runPolicy"].get("retries", 0) + 1)

    def finished(self) -> bool:
        return condition(self.world.job(), "Succeeded") in ("True", "False")

    def make_peace(self) -> None:
        """No more faults: everyone does their part until the job is finished."""
        for operator in (*self._ghosts, *self._operators):
            operator.api.late = None  # else the write after the one that arrives were so too
        self.arrive()
        self._mend()
        quiet = 0
        for _ in range(PATIENCE):
            before = self.world.version
            self._settle()
            quiet = quiet + 1 if self.finished() and self.world.version == before else 0
            if quiet == QUIET:
                return
            self.world.now += timedelta(seconds=7)
        raise AssertionError(f"never finished: {self.world.job().get('status')}")

    def _mend(self) -> None:
        api, world = self.operator.api, self.world
        api.fault, api.outage = None, 0
        world.refused.clear()
        world.room = None
        world.hold(False)
        leave(world)
        if world.job()["spec"]["runPolicy"].get("suspend"):
            self.edit(suspend=False)
        # A gap is closed by the next periodic list.
        self.operator.relist()

    def _settle(self) -> None:
        self.world.lose_nodes()
        self.world.collect()
        self.world.train_operator()
        self.start_pods()
        self.operator.deliver_all()
        self.operator.elect()
        before = self.world.writes
        self.do_pass()
        if self.world.writes != before:
            self.do_pass()
        for pod in self.world.all("Pod"):
            self.world.end(pod["metadata"]["name"], self.fate)

    def check_silence(self) -> None:
        """Converged: no pass writes, a relist and a new operator included."""
        before = self.world.writes
        for _ in range(3):
            self.do_pass()
            self.world.now += timedelta(hours=1)
            self.operator.elect()
        self.operator.relist()
        self.do_pass()
        self.restart()
        self.do_pass()
        assert self.world.writes == before, "it wrote, though nothing was to be done"

    def check_absence(self) -> None:
        """The job was deleted: what it had goes, and nobody makes anything of it again."""
        self.arrive()
        for _ in range(4):
            self.world.collect()
            self.start_pods()
            self.world.now += timedelta(seconds=GRACE)
            self.operator.deliver_all()
            self.operator.elect()
            writes = self.world.writes
            self.do_pass()
            assert self.world.writes == writes, "it wrote for a job that is gone"
        leave(self.world)
        self.world.collect()
        left = [name for _, name in self.world.objects if name not in self.world.unreachable]
        assert not left, left

"""One operator after another in one World, and what must never happen there."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from finetune_operator.backends.pytorchjob import PyTorchJob
from finetune_operator.cache import Cache, Key
from finetune_operator.events import Recorder
from finetune_operator.queue import RetryLater
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings
from finetune_operator.sync import Synchroniser
from support.bot_job import bot_job
from support.model_cluster import Crash, Fault, ModelApi
from support.model_world import WORKLOAD, World, artifact, attempt_of, belongs, watched_kinds

Json = Any
Schedule = list[tuple[str, Any]]
KEY = Key("team", "bot")
FENCE = 60
GRACE = 10
SETTINGS = Settings(
    trainer_image="trainer:1",
    fence_timeout_seconds=FENCE,
    retry_base_seconds=10,
    retry_cap_seconds=20,
    max_infrastructure_attempts=4,
)
TURN = ["deliver all", "pass", "training-operator", "start pods", "collect"]


class Simulation:
    """One operator after another in one World."""

    def __init__(self) -> None:
        self.world = World()
        self._loop = asyncio.new_event_loop()
        self.world.add(
            bot_job(
                workers={"replicas": 2}, training={"microBatchSize": 4}, runPolicy=_policy(False)
            )
        )
        self.start_operator()

    def close(self) -> None:
        self._loop.close()

    def run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def start_operator(self) -> None:
        """A new process: nothing remembered, everything listed."""
        self.cache = Cache()
        self.api = ModelApi(self.world, self.may_create, self.may_follow)
        self.reconciler = Reconciler(
            self.api,
            self.cache,
            SETTINGS,
            PyTorchJob(),
            clock=lambda: self.world.now,
            recorder=Recorder(self.api),
        )
        for queue in self.world.pending.values():
            queue.clear()
        self.relist()

    def relist(self) -> None:
        self.run(Synchroniser(self.api, self.cache, (), lambda key: None).relist())

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

    # -- what must never happen --------------------------------------------------------------

    def may_create(self, body: Json) -> None:
        """Object to a workload that could run, or commit, beside another."""
        if body["kind"] != WORKLOAD:
            return
        attempt = attempt_of(body)
        status = self.world.job()["status"]
        last = status["attempts"][-1]
        assert last["number"] == attempt, "it does not stand in status as the newest attempt"
        assert last["state"] == "Starting", f"its state is {last['state']}"
        assert "workloadUid" not in last, "it had been made before"
        succeeded = {c["type"]: c["status"] for c in status["conditions"]}["Succeeded"]
        assert succeeded == "Unknown", "a finished job never runs again"
        fenced = self._fenced(status["attempts"])
        for pod in self.world.live_pods():
            assert attempt_of(pod) in fenced, f"{pod['metadata']['name']} still runs"
        for lease in self.world.all("Lease"):
            assert attempt_of(lease) == attempt, "the Lease of an older attempt stands"
        for other in self.world.all(WORKLOAD):
            older = attempt_of(other)
            assert older in fenced or PyTorchJob().outcome(other) is not None, "another stands"

    def _fenced(self, attempts: list[Json]) -> set[int]:
        long_ago = self.world.now - timedelta(seconds=FENCE + GRACE)
        stamp = long_ago.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {a["number"] for a in attempts if a.get("endTime", "9") <= stamp}

    def may_follow(self, old: Json, believed: Json, new: Json) -> None:
        """Object to a status that forgets, goes back, or mixes attempts up."""
        assert believed == old, "a patch made from something else leaves what should go"
        saved, known = new.get("checkpoint"), old.get("checkpoint")
        if known is not None:
            assert saved is not None, "the checkpoint was forgotten"
            assert saved["step"] >= known["step"], "the checkpoint went back"
        if saved is not None:
            assert saved["step"] <= self.world.saved["step"], "nobody saved it"
        before = {a["number"]: a for a in old.get("attempts", [])}
        for attempt in new.get("attempts", []):
            was = before.get(attempt["number"], {})
            if was.get("state") in ("Failed", "Suspended", "Succeeded"):
                counts = {k: v for k, v in attempt.items() if k in ("lastStep", "lostSteps")}
                assert attempt == was | counts, "the record of a closed attempt changed"
            if "lastStep" in attempt:
                done = self.world.steps[attempt["number"]]
                assert was.get("lastStep", 0) <= attempt["lastStep"] <= done
                assert 0 <= attempt.get("lostSteps", 0) <= attempt["lastStep"]
            if "resumedStep" in was:
                assert attempt["resumedStep"] == was["resumedStep"]
        if progress := new.get("progress"):
            assert progress["attempt"] == new["attempts"][-1]["number"]
            assert progress["step"] <= self.world.steps[progress["attempt"]]

    # -- peace ---------------------------------------------------------------------------------

    def make_peace(self) -> None:
        """No more faults: everyone does their part until the job is finished."""
        self.api.fault = None
        job = self.world.job()
        if job["spec"].get("runPolicy", {}).get("suspend"):
            self.edit(suspend=False)
        for _ in range(120):
            before = self.world.version
            self.settle()
            if self.finished() and self.world.version == before:
                return
            self.world.now += timedelta(seconds=7)
        raise AssertionError(f"never finished: {self.world.job().get('status')}")

    def settle(self) -> None:
        self.world.lose_nodes()
        self.world.collect()
        self.world.train_operator()
        for pod in self.world.all("Pod"):
            self.world.kubelet(pod["metadata"]["name"])
        for kind in watched_kinds():
            self.deliver(kind, 1_000)
        self.do_pass()
        self.do_pass()
        for pod in self.world.all("Pod"):
            self.world.end(pod["metadata"]["name"], "Succeeded")

    def edit(self, suspend: bool) -> None:
        job = self.world.job()
        changed = {**job, "metadata": {**job["metadata"]}, "spec": {**job["spec"]}}
        changed["spec"]["runPolicy"] = _policy(suspend)
        changed["metadata"]["generation"] += 1
        self.world.store(changed)

    def finished(self) -> bool:
        return self.condition("Succeeded") in ("True", "False")

    def condition(self, kind: str) -> str | None:
        conditions = self.world.job().get("status", {}).get("conditions", [])
        return next((c["status"] for c in conditions if c["type"] == kind), None)

    def check_the_end(self) -> None:
        job = self.world.job()
        status = job["status"]
        attempts = status["attempts"]
        assert [a["number"] for a in attempts] == list(range(1, len(attempts) + 1))
        assert all(a["state"] in ("Failed", "Suspended") for a in attempts[:-1])
        if self.condition("Succeeded") == "True":
            told = dict(status["artifact"])
            accepted = told.pop("attempt")
            assert accepted == attempts[-1]["number"]
            assert accepted in self.world.committed, "nobody committed what status shows"
            assert told == artifact(job["metadata"]["uid"], accepted)
            assert (self.condition("Ready"), self.condition("Stalled")) == ("True", None)
        else:
            assert (self.condition("Ready"), self.condition("Stalled")) == ("False", "True")
            assert attempts[-1]["state"] == "Failed"
        assert self.condition("Reconciling") is None
        strays = [
            (k, n)
            for (k, n), b in self.world.objects.items()
            if k != "Pod" and belongs(b, "bot") and f"-a{attempts[-1]['number']}" not in n
        ]
        assert all(name == "bot-finetune" for _, name in strays), strays

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
            simulation.deliver(*argument)
        case "deliver all":
            for kind in watched_kinds():
                simulation.deliver(kind, 1_000)
        case "repeat":
            simulation.repeat(*argument)
        case "gap":
            world.pending[argument].clear()
        case "relist":
            simulation.relist()
        case "fault":
            simulation.api.fault = Fault(argument.write, argument.after, argument.crash)
        case "training-operator":
            world.train_operator()
        case "start pods":
            for pod in world.all("Pod"):
                world.kubelet(pod["metadata"]["name"])
        case "end":
            world.end(*argument)
        case "unreachable":
            world.unreachable.add(argument)
        case "delete pod":
            world.delete_pod(argument)
        case "delete workload" if (WORKLOAD, f"bot-a{argument}") in world.objects:
            world.drop(WORKLOAD, f"bot-a{argument}")
        case "train":
            world.train(*argument)
        case "polite":
            world.polite = argument
        case "collect":
            world.collect()
        case "suspend" if not simulation.finished():
            simulation.edit(argument)
        case "label":
            job = world.job()
            world.store({**job, "metadata": {**job["metadata"]}})
        case "wait":
            world.now += timedelta(seconds=argument)


def play(schedule: Schedule) -> Json:
    simulation = Simulation()
    try:
        for name, argument in schedule:
            take(simulation, name, argument)
        # A gap is closed by the next periodic list.
        simulation.relist()
        simulation.make_peace()
        simulation.check_the_end()
        simulation.check_silence()
        return simulation.world.job()
    finally:
        simulation.close()

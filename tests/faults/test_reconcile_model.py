"""The reconciler against every disorder that a schedule can bring about.

Watches late, in any order between kinds, repeated, or missed; requests refused or unanswered; the
operator killed before and after any write; pods ended, deleted, replaced, unreachable; users that
suspend, delete and edit. Checked at every request: never two attempts that can commit. Checked
after peace has come: the right final status, no strays, and then not a single write.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_api.job import KIND
from finetune_operator.backends.pytorchjob import PyTorchJob
from finetune_operator.cache import Cache, Key
from finetune_operator.events import Recorder
from finetune_operator.queue import RetryLater
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings
from finetune_operator.sync import Synchroniser
from support.bot_job import bot_job
from support.model_cluster import (
    WORKLOAD,
    Crash,
    Fault,
    ModelApi,
    World,
    artifact,
    attempt_of,
    belongs,
    watched_kinds,
)

Json = Any
KEY = Key("team", "bot")
FENCE = 60
SETTINGS = Settings(
    trainer_image="trainer:1",
    fence_timeout_seconds=FENCE,
    retry_base_seconds=10,
    retry_cap_seconds=20,
    max_infrastructure_attempts=4,
)
PODS = [f"bot-a{k}-{role}-0" for k in (1, 2, 3) for role in ("master", "worker")]
TURN = ["deliver all", "pass", "training-operator", "start pods", "collect"]
ENDS = ["Succeeded", "OOMKilled", "DataInvalid", "DistributedFailure", "Killed", "TrainerError"]


class Simulation:
    """One operator after another in one World."""

    def __init__(self) -> None:
        self.world = World()
        self._loop = asyncio.new_event_loop()
        self.world.add(bot_job(workers={"replicas": 2}, training={"microBatchSize": 4}))
        self.start_operator()

    def close(self) -> None:
        self._loop.close()

    def run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def start_operator(self) -> None:
        """A new process: nothing remembered, everything listed."""
        self.cache = Cache()
        self.api = ModelApi(self.world, self.may_create)
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
        long_ago = self.world.now - timedelta(seconds=FENCE)
        stamp = long_ago.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {a["number"] for a in attempts if a.get("endTime", "9") <= stamp}

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
        changed["spec"]["runPolicy"] = {"suspend": suspend}
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


def steps() -> st.SearchStrategy[tuple[str, Any]]:
    kinds = st.sampled_from([KIND, WORKLOAD, "Pod", "Lease"])
    pods = st.sampled_from(PODS)
    parts = st.lists(st.sampled_from(TURN), min_size=3, max_size=5, unique=True)
    return st.one_of(
        st.tuples(st.just("turn"), st.just(TURN)),
        st.tuples(st.just("turn"), parts),
        st.tuples(st.just("pass"), st.none()),
        st.tuples(st.just("deliver"), st.tuples(kinds, st.integers(1, 4))),
        st.tuples(st.just("deliver all"), st.none()),
        st.tuples(st.just("repeat"), st.tuples(kinds, st.integers(0, 30))),
        st.tuples(st.just("gap"), kinds),
        st.tuples(st.just("relist"), st.none()),
        st.tuples(
            st.just("fault"), st.builds(Fault, st.integers(0, 9), st.booleans(), st.booleans())
        ),
        st.tuples(st.just("training-operator"), st.none()),
        st.tuples(st.just("start pods"), st.none()),
        st.tuples(st.just("end"), st.tuples(pods, st.sampled_from(ENDS))),
        st.tuples(st.just("unreachable"), pods),
        st.tuples(st.just("delete pod"), pods),
        st.tuples(st.just("delete workload"), st.integers(1, 3)),
        st.tuples(st.just("collect"), st.none()),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("label"), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([1, 5, 11, 31, 61])),
    )


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
        case "collect":
            world.collect()
        case "suspend" if not simulation.finished():
            simulation.edit(argument)
        case "label":
            job = world.job()
            world.store({**job, "metadata": {**job["metadata"]}})
        case "wait":
            world.now += timedelta(seconds=argument)


def play(schedule: list[tuple[str, Any]]) -> Json:
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


# Most accidents need a run that is under way.
SCHEDULES = st.builds(
    lambda turns, rest: [("turn", TURN)] * turns + rest,
    st.integers(0, 3),
    st.lists(steps(), min_size=5, max_size=60),
)
CHECKS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=250, **CHECKS)
@given(SCHEDULES)
def test_any_schedule(schedule: list[tuple[str, Any]]) -> None:
    play(schedule)


@pytest.mark.slow
@settings(max_examples=5_000, **CHECKS)
@given(SCHEDULES)
def test_many_schedules(schedule: list[tuple[str, Any]]) -> None:
    play(schedule)


def quiet_life() -> list[tuple[str, Any]]:
    """A run in which one pod runs out of memory and the next attempt succeeds."""
    turn = ("turn", TURN)
    oom = ("end", ("bot-a1-worker-0", "OOMKilled"))
    success = ("end", ("bot-a2-master-0", "Succeeded"))
    return [turn, turn, oom, turn, turn, ("wait", 11), turn, turn, success, turn]


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "error"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(24))
def test_a_fault_at_each_write_of_a_run(write: int, after: bool, crash: bool) -> None:
    play([("fault", Fault(write, after, crash)), *quiet_life()])


TURN_STEP = ("turn", TURN)
LOOK = [("deliver", (KIND, 9)), ("pass", None)]
SCENARIOS: dict[str, tuple[list[tuple[str, Any]], list[str]]] = {
    "suspended while the cache shows none of its pods": (
        [
            ("pass", None),
            ("pass", None),
            ("training-operator", None),
            ("start pods", None),
            ("suspend", True),
            *LOOK,
            ("suspend", False),
            *LOOK,
            *LOOK,
            ("wait", 11),
            *LOOK,
        ],
        ["Suspended", "Succeeded"],
    ),
    "suspended after the answer to the Lease was lost": (
        [
            ("fault", Fault(6, True, False)),
            ("pass", None),
            ("suspend", True),
            *LOOK,
            *LOOK,
            ("suspend", False),
            *LOOK,
        ],
        ["Suspended", "Succeeded"],
    ),
    "killed after the PyTorchJob was made, which someone then deleted": (
        [
            ("fault", Fault(7, True, True)),
            ("pass", None),
            ("training-operator", None),
            ("start pods", None),
            ("delete workload", 1),
            ("deliver all", None),
            ("pass", None),
            ("pass", None),
        ],
        ["PodLost", "Succeeded"],
    ),
    "a pod replaced while nobody looked": (
        [
            TURN_STEP,
            TURN_STEP,
            ("delete pod", "bot-a1-worker-0"),
            ("training-operator", None),
            ("start pods", None),
            TURN_STEP,
        ],
        ["PodLost", "Succeeded"],
    ),
    "a pod that ended and was deleted before anyone looked": (
        [
            TURN_STEP,
            TURN_STEP,
            TURN_STEP,
            ("end", ("bot-a1-worker-0", "OOMKilled")),
            ("delete pod", "bot-a1-worker-0"),
            ("deliver all", None),
            ("pass", None),
        ],
        ["OutOfMemory", "Succeeded"],
    ),
    "a success that was deleted before anyone looked": (
        [
            TURN_STEP,
            TURN_STEP,
            TURN_STEP,
            ("end", ("bot-a1-master-0", "Succeeded")),
            ("delete pod", "bot-a1-master-0"),
            ("deliver all", None),
            ("pass", None),
        ],
        ["Succeeded"],
    ),
    "a node that never answers again": (
        [
            TURN_STEP,
            TURN_STEP,
            TURN_STEP,
            ("unreachable", "bot-a1-worker-0"),
            ("delete workload", 1),
            TURN_STEP,
            ("wait", 31),
            TURN_STEP,
            ("wait", 31),
            TURN_STEP,
        ],
        ["PodLost", "Succeeded"],
    ),
    "the last attempt's workload is not the next one's": (
        [
            TURN_STEP,
            TURN_STEP,
            TURN_STEP,
            ("end", ("bot-a1-master-0", "TrainerError")),
            TURN_STEP,
            ("wait", 11),
            TURN_STEP,
            TURN_STEP,
            ("end", ("bot-a2-master-0", "DataInvalid")),
            TURN_STEP,
        ],
        ["TrainerError", "DataInvalid"],
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_for_the_right_reasons(name: str) -> None:
    schedule, reasons = SCENARIOS[name]
    attempts = play(schedule)["status"]["attempts"]
    assert [a["reason"] for a in attempts] == reasons


def test_a_quiet_run_needs_two_attempts_and_few_writes() -> None:
    simulation = Simulation()
    for name, argument in quiet_life():
        take(simulation, name, argument)
    attempts = simulation.world.job()["status"]["attempts"]
    assert [(a["state"], a["microBatchSize"]) for a in attempts] == [
        ("Failed", 4),
        ("Succeeded", 2),
    ]
    assert simulation.world.writes <= 26
    simulation.check_silence()
    simulation.close()


def test_a_hundred_converged_jobs_cost_no_write() -> None:
    simulations = [Simulation() for _ in range(100)]
    for simulation in simulations:
        for name, argument in quiet_life():
            take(simulation, name, argument)
        before = simulation.world.writes
        simulation.relist()
        for _ in range(3):
            simulation.do_pass()
        assert simulation.world.writes == before
        simulation.close()

"""The reconciler against every disorder that a schedule can bring about.

Watches late, in any order between kinds, repeated, or missed; requests refused or unanswered; the
operator killed before and after any write; pods ended, deleted, replaced, unreachable; trainers
that report, save, and say so late or never; users that suspend, delete and edit. Checked at every
request: never two attempts that can commit, no checkpoint forgotten, no step counted that was not
done. Checked after peace has come: the right final status, no strays, then not a single write.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_api.job import KIND
from support.operator.backends import BACKENDS, NAMES, Played
from support.operator.model.api_server import Fault
from support.operator.model.schedules import TURN, WORKLOAD, Pod, Schedule, Simulation, play, take

CHECK = "bot-rewards"
ATTEMPT_PODS = [(attempt, rank) for attempt in (1, 2, 3) for rank in (0, 1)]
PODS: list[Pod] = [*ATTEMPT_PODS, CHECK]
ENDS = [
    *("Succeeded", "OOMKilled", "DataInvalid", "DistributedFailure", "Killed", "TrainerError"),
    "Interrupted",
]
DISRUPTIONS = ["EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByTaintManager"]


def steps() -> st.SearchStrategy[tuple[str, Any]]:
    kinds = st.sampled_from([KIND, WORKLOAD, "Pod", "Lease"])
    pods = st.sampled_from(PODS)
    leads = st.sampled_from(ATTEMPT_PODS[::2])
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
        st.tuples(st.just("train"), st.tuples(leads, st.integers(0, 3), st.booleans())),
        st.tuples(st.just("polite"), st.booleans()),
        st.tuples(st.just("sidecars"), st.booleans()),
        st.tuples(st.just("unreachable"), pods),
        st.tuples(st.just("delete pod"), pods),
        st.tuples(st.just("evict"), st.tuples(pods, st.sampled_from(DISRUPTIONS))),
        st.tuples(st.just("delete workload"), st.integers(1, 3)),
        st.tuples(st.just("collect"), st.none()),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("retry"), st.none()),
        st.tuples(st.just("label"), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([1, 5, 11, 31, 61])),
    )


# Most accidents need a run that is under way.
SCHEDULES = st.builds(
    lambda turns, rest: [("turn", TURN)] * turns + rest,
    st.integers(0, 3),
    st.lists(steps(), min_size=5, max_size=60),
)
CHECKS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=250, **CHECKS)
@given(SCHEDULES, st.booleans(), st.sampled_from(BACKENDS))
def test_any_schedule(schedule: Schedule, code: bool, backend: Played) -> None:
    play(schedule, code, backend)


@pytest.mark.slow
@settings(max_examples=5_000, **CHECKS)
@given(SCHEDULES, st.booleans(), st.sampled_from(BACKENDS))
def test_many_schedules(schedule: Schedule, code: bool, backend: Played) -> None:
    play(schedule, code, backend)


def quiet_life() -> Schedule:
    """A run in which one pod runs out of memory and the next attempt succeeds."""
    turn = ("turn", TURN)
    oom = ("end", ((1, 1), "OOMKilled"))
    other, success = (("end", ((2, rank), "Succeeded")) for rank in (1, 0))
    return [turn, turn, oom, turn, turn, ("wait", 11), turn, turn, other, success, turn, turn]


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "error"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(24))
@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
def test_a_fault_at_each_write_of_a_run(
    backend: Played, write: int, after: bool, crash: bool
) -> None:
    play([("fault", Fault(write, after, crash)), *quiet_life()], backend=backend)


def first_tried() -> Schedule:
    """The rewards' first pod is killed, the second finds them good."""
    turn = ("turn", TURN)
    lost, good = ("end", (CHECK, "Killed")), ("end", (CHECK, "Succeeded"))
    return [turn, lost, turn, turn, ("wait", 11), turn, turn, good, turn]


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "error"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(16))
def test_a_fault_at_each_write_before_the_first_attempt(
    write: int, after: bool, crash: bool
) -> None:
    job = play([("fault", Fault(write, after, crash)), *first_tried()], code=True)
    assert [a["state"] for a in job["status"]["attempts"]] == ["Succeeded"]


def on_a_lost_node(after: Schedule) -> Schedule:
    """The node of the pod that tries the rewards never answers again."""
    turn = ("turn", TURN)
    return [turn, turn, ("unreachable", CHECK), *after]


@pytest.mark.parametrize(
    "after",
    [
        [],
        [("delete pod", CHECK), ("turn", TURN), ("wait", 61), ("turn", TURN)],
        [("suspend", True), ("turn", TURN), ("suspend", False)],
        [("delete pod", CHECK), ("turn", TURN), ("suspend", True), ("turn", TURN)],
    ],
    ids=["silent", "evicted", "suspended", "evicted and suspended"],
)
def test_rewards_are_tried_again_although_a_lost_node_keeps_the_first_pod(after: Schedule) -> None:
    job = play(on_a_lost_node(after), code=True)
    assert [a["state"] for a in job["status"]["attempts"]] == ["Succeeded"]
    assert job["status"]["rewardCheck"]["state"] == "Passed"


@pytest.mark.parametrize(
    ("end", "reason"), [("RewardInvalid", "RewardInvalid"), ("TrainerError", "TrainerError")]
)
def test_rewards_that_are_no_good_end_the_job_before_any_attempt(end: str, reason: str) -> None:
    turn = ("turn", TURN)
    tries = [turn, ("end", (CHECK, end)), turn, turn, ("wait", 31)] * 3
    job = play(tries, code=True)
    assert "attempts" not in job["status"]
    assert job["status"]["rewardCheck"]["state"] == "Failed"
    assert {c["type"]: c["reason"] for c in job["status"]["conditions"]}["Succeeded"] == reason


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

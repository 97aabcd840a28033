"""The reconciler against every disorder that a schedule can bring about.

Watches late, in any order between kinds, repeated, or missed; requests refused, unanswered or
arriving late; the operator killed before and after any write, on a machine whose clock is off, or
one of two of which one leads; pods ended, deleted while they run on, replaced, refused; nodes lost,
and back; trainers that report, save, and say so late or never; users that suspend, delete and set
deadlines; strangers that plant objects, relabel ours and write status by hand. Checked at every
request: never two attempts that run or can commit, nothing that goes back or was not done, nobody
else's deleted. Checked after each pass: suspension and deadline hold. Checked after peace has come:
the right final status, no strays, then not a single write.
"""

from __future__ import annotations

import pytest

from support.operator.backends import BACKENDS, NAMES, Played
from support.operator.model.api_server import Fault
from support.operator.model.drawn import CHECK
from support.operator.model.moves import play, take
from support.operator.model.schedules import TURN, Schedule, Simulation
from support.operator.model.search import search


@pytest.mark.parametrize("part", range(4))
def test_any_schedule(part: int) -> None:
    search(part, 40)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4, 24))
def test_twenty_thousand_schedules(part: int) -> None:
    search(part, 1_000)


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


def test_what_tries_rewards_on_a_lost_node_goes_with_its_job() -> None:
    job = play(on_a_lost_node([("deadline", 60), ("wait", 61)]), code=True)
    assert {c["type"]: c["reason"] for c in job["status"]["conditions"]}["Succeeded"] == (
        "DeadlineExceeded"
    )


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
        simulation.operator.relist()
        for _ in range(3):
            simulation.do_pass()
        assert simulation.world.writes == before
        simulation.close()

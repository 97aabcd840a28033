"""Schedules as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from finetune_api.job import KIND
from support.operator.model import strangers
from support.operator.model.api_server import REFUSALS, Fault
from support.operator.model.schedules import TURN, WORKLOAD, Pod, Schedule

CHECK = "bot-rewards"
ATTEMPT_PODS = [(attempt, rank) for attempt in (1, 2, 3) for rank in (0, 1)]
PODS: list[Pod] = [*ATTEMPT_PODS, CHECK]
ENDS = [
    *("Succeeded", "OOMKilled", "DataInvalid", "DistributedFailure", "Killed", "TrainerError"),
    "Interrupted",
]
DISRUPTIONS = ["EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByTaintManager"]
SKEWS = [-900, -60, -4, 0, 4, 60, 900]  # seconds
Steps = st.SearchStrategy[tuple[str, Any]]


def _moves(name: str, *arguments: st.SearchStrategy[Any]) -> Steps:
    drawn = arguments[0] if len(arguments) == 1 else st.tuples(*arguments)
    return st.tuples(st.just(name), drawn if arguments else st.none())


def _operators() -> list[Steps]:
    kinds = st.sampled_from([KIND, WORKLOAD, "Pod", "Lease"])
    few = st.integers(0, 9)
    return [
        _moves("pass"),
        _moves("passes", st.integers(2, 10)),
        _moves("deliver", kinds, st.integers(1, 4)),
        _moves("deliver all"),
        _moves("repeat", kinds, st.integers(0, 30)),
        _moves("gap", kinds),
        _moves("relist"),
        _moves("fault", st.builds(Fault, few, st.booleans(), st.booleans())),
        _moves("restart", st.sampled_from(SKEWS)),
        _moves("late", few),
        _moves("arrive"),
        _moves("outage", few),
    ]


def _machines() -> list[Steps]:
    pods, yes = st.sampled_from(PODS), st.booleans()
    leads = st.sampled_from(ATTEMPT_PODS[::2])
    return [
        _moves("training-operator"),
        _moves("start pods"),
        _moves("collect"),
        _moves("end", pods, st.sampled_from(ENDS)),
        _moves("train", leads, st.integers(0, 3), yes),
        _moves("fate", st.sampled_from(ENDS)),
        _moves("polite", yes),
        _moves("stubborn", yes),
        _moves("sidecars", yes),
        _moves("unreachable", pods),
        _moves("taint"),
        _moves("remove nodes"),
        _moves("nodes are back"),
        _moves("node clocks", st.sampled_from(SKEWS)),
        _moves("room", st.sampled_from([0, 1, 3, None])),
        _moves("hold", yes),
        _moves("old report", leads, st.integers(0, 3)),
        _moves("wait", st.sampled_from([1, 5, 11, 31, 61, 121])),
    ]


def _users() -> list[Steps]:
    pods = st.sampled_from(PODS)
    return [
        _moves("delete pod", pods),
        _moves("evict", pods, st.sampled_from(DISRUPTIONS)),
        _moves("delete workload", st.integers(1, 3)),
        _moves("orphan", st.integers(1, 3)),
        _moves("suspend", st.booleans()),
        _moves("deadline", st.sampled_from([60, 120, None])),
        _moves("overrun", st.sampled_from([60, 120])),
        _moves("retry"),
        _moves("label"),
    ]


def _strangers() -> list[Steps]:
    attempts, yes = st.sampled_from([1, 1, 2, 3]), st.booleans()
    made = st.sampled_from([*strangers.KINDS, WORKLOAD])
    whose = st.sampled_from(strangers.OWNERS)
    return [
        _moves("plant", st.sampled_from(strangers.KINDS), attempts, whose),
        _moves("plant pod", st.sampled_from(ATTEMPT_PODS), yes),
        _moves("relabel", made, attempts, yes),
        _moves("edit status", st.just("back"), st.integers(0, 30)),
        _moves("edit status", st.just("cut"), st.integers(0, len(strangers.CUTS) - 1)),
        _moves("edit status", st.just("forward"), st.integers(0, 3)),
        _moves("refuse", made, st.sampled_from(sorted(REFUSALS))),
    ]


def _swaps() -> list[Steps]:
    rival = _moves("rival", st.sampled_from(SKEWS))
    return [_moves("swap"), _moves("elect"), _moves("fail over"), rival]


def _steps(hostile: bool, two: bool) -> Steps:
    parts = st.lists(st.sampled_from(TURN), min_size=3, max_size=6, unique=True)
    # Of a strategy that it is given twice one_of makes no more than of one that it is given once.
    turns = [_moves("turn", st.just(TURN)) for _ in range(6)]
    also = _strangers() if hostile else []
    swaps = [*_swaps(), *_swaps()] if two else []
    partly = _moves("turn", parts)
    return st.one_of(*turns, partly, *_operators(), *_machines(), *_users(), *also, *swaps)


def schedules(hostile: bool, two: bool) -> st.SearchStrategy[Schedule]:
    """Return schedules with or without strangers, of one operator or `two`."""
    # Most accidents need a run that is under way.
    begun = st.integers(0, 3).map(lambda turns: [("turn", TURN)] * turns)
    moves = st.lists(_steps(hostile, two), min_size=5, max_size=50)
    last = st.sampled_from([[]] * 7 + [[("delete job", None)]])
    return st.tuples(begun, moves, last).map(lambda parts: [*parts[0], *parts[1], *parts[2]])

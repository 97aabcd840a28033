"""Schedules that went wrong once, or nearly: each must end for the right reasons."""

from __future__ import annotations

import pytest

from finetune_api.job import KIND
from support.operator.backends import BACKENDS, NAMES, Played
from support.operator.model.api_server import Fault
from support.operator.model.moves import play
from support.operator.model.schedules import TURN, WORKLOAD, Schedule

TURN_STEP = ("turn", TURN)
LOOK = [("deliver", (KIND, 9)), ("pass", None)]
SCENARIOS: dict[str, tuple[Schedule, list[str]]] = {
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
    "killed after the workload was made, which someone then deleted": (
        [
            ("crash once the workload is made", None),
            ("pass", None),
            ("training-operator", None),
            ("start pods", None),
            ("delete workload", 1),
            ("deliver all", None),
            ("pass", None),
            ("pass", None),
        ],
        # Its uid is not known, so its pods are not either: their names are waited for.
        ["Succeeded"],
    ),
    "killed after the workload was made, which a queue then let go": (
        [
            ("crash once the workload is made", None),
            ("pass", None),
            ("training-operator", None),
            ("start pods", None),
            ("hold", False),
        ],
        # Where that is not as planned it is made anew, but not beside its pods.
        ["Succeeded"],
    ),
    "killed while one of its writes is on its way": (
        [("late", 2), ("fault", Fault(3, False, True)), ("pass", None), ("relist", None)],
        ["Succeeded"],
    ),
    "a pod replaced while nobody looked": (
        [
            TURN_STEP,
            TURN_STEP,
            ("delete pod", (1, 1)),
            ("start pods", None),
            ("training-operator", None),
            ("start pods", None),
            TURN_STEP,
        ],
        ["PodLost", "Succeeded"],
    ),
    "sidecars that outlive their trainers": (
        [
            *[TURN_STEP] * 3,
            ("sidecars", True),
            ("end", ((1, 1), "OOMKilled")),
            *[TURN_STEP, ("wait", 11), *[TURN_STEP] * 3],
            ("end", ((2, 1), "Succeeded")),
            ("end", ((2, 0), "Succeeded")),
            TURN_STEP,
        ],
        ["OutOfMemory", "Succeeded"],
    ),
    "a job that fails, and that the user lets go on": (
        [
            *[TURN_STEP] * 3,
            ("end", ((1, 0), "DataInvalid")),
            *[TURN_STEP] * 3,
            ("retry", None),
            *[TURN_STEP] * 3,
            ("end", ((2, 0), "DataInvalid")),
            *[TURN_STEP] * 3,
            ("retry", None),
            *[TURN_STEP] * 3,
            ("end", ((3, 0), "Succeeded")),
        ],
        ["DataInvalid", "DataInvalid", "Succeeded"],
    ),
    "a job that fails, whose sidecars do not end": (
        [
            *[TURN_STEP] * 3,
            ("sidecars", True),
            ("end", ((1, 1), "DistributedFailure")),
            ("end", ((1, 0), "DataInvalid")),
            TURN_STEP,
        ],
        ["DataInvalid"],
    ),
    "a pod that ended and was deleted before anyone looked": (
        [
            TURN_STEP,
            TURN_STEP,
            TURN_STEP,
            ("end", ((1, 1), "OOMKilled")),
            ("delete pod", (1, 1)),
            ("start pods", None),
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
            ("end", ((1, 0), "Succeeded")),
            ("delete pod", (1, 0)),
            ("start pods", None),
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
            ("unreachable", (1, 1)),
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
            ("end", ((1, 0), "TrainerError")),
            TURN_STEP,
            ("wait", 11),
            TURN_STEP,
            TURN_STEP,
            ("end", ((2, 0), "DataInvalid")),
            TURN_STEP,
        ],
        ["TrainerError", "DataInvalid"],
    ),
}


@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_for_the_right_reasons(name: str, backend: Played) -> None:
    schedule, reasons = SCENARIOS[name]
    attempts = play(schedule, backend=backend)["status"]["attempts"]
    assert [a["reason"] for a in attempts] == reasons


SECOND = [  # the second attempt runs
    *[TURN_STEP] * 3,
    ("end", ((1, 0), "Killed")),
    *[TURN_STEP, ("wait", 11), TURN_STEP, TURN_STEP, ("wait", 11), *[TURN_STEP] * 3],
]
EDITS: dict[str, Schedule] = {
    "the uid of a workload that has ended, one pod of which can not be reached": [
        *[TURN_STEP] * 3,
        ("unreachable", (1, 1)),
        ("end", ((1, 0), "Killed")),
        ("training-operator", None),
        ("edit status", ("back", 0)),
    ],
    "the uid of a workload is another's": [
        *[TURN_STEP] * 3,
        ("unreachable", (1, 1)),
        ("edit status", ("forward", 2)),
    ],
    "the uid of a workload is gone, and another attempt is said to follow": [
        *[TURN_STEP] * 3,
        ("edit status", ("back", 0)),
        ("edit status", ("forward", 1)),
    ],
    "the uid of a workload is gone, and so are its labels": [
        *[TURN_STEP] * 3,
        ("relabel", (WORKLOAD, 1, True)),
        ("edit status", ("back", 0)),
    ],
    "the conditions are gone before the workload is made": [
        ("refuse", ("ConfigMap", "busy")),
        TURN_STEP,
        ("edit status", ("cut", 1)),
    ],
    "all attempts are gone while a workload is on its way": [
        ("late", 8),
        TURN_STEP,
        ("edit status", ("cut", 0)),
        ("arrive", None),
    ],
    "another attempt is said to follow one that runs, which is to stop": [
        *[TURN_STEP] * 3,
        ("unreachable", (1, 1)),
        ("suspend", True),
        ("edit status", ("forward", 1)),
        TURN_STEP,
    ],
    "the second attempt is gone": [*SECOND, ("edit status", ("back", 0))],
    "all attempts are gone": [*SECOND, ("edit status", ("cut", 0))],
    "all attempts are gone while a pod can not be reached": [
        *SECOND,
        ("unreachable", (2, 1)),
        ("edit status", ("cut", 0)),
    ],
}


@pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)
@pytest.mark.parametrize("name", EDITS)
def test_nothing_starts_beside_what_an_edited_status_does_not_tell_of(
    name: str, backend: Played
) -> None:
    assert play(EDITS[name], backend=backend)["status"]["attempts"][-1]["state"] == "Succeeded"


def test_what_is_lost_is_counted_and_what_was_saved_is_gone_on_from() -> None:
    """5 steps, of which 3 were saved; then, from 3, a suspension that saves step 7; then 2 more."""
    killed = ("end", ((1, 0), "Killed"))
    schedule: Schedule = [
        *[TURN_STEP] * 3,
        ("train", ((1, 0), 3, True)),
        ("train", ((1, 0), 2, False)),
        killed,
        *[TURN_STEP, ("wait", 11), TURN_STEP, ("wait", 11), *[TURN_STEP] * 3],
        ("train", ((2, 0), 4, False)),
        ("polite", True),
        ("suspend", True),
        *[TURN_STEP] * 3,
        ("suspend", False),
        *[TURN_STEP] * 3,
        ("train", ((3, 0), 2, False)),
        ("end", ((3, 0), "Succeeded")),
    ]
    status = play(schedule)["status"]
    course = [
        tuple(a.get(k) for k in ("state", "resumedStep", "lastStep", "lostSteps"))
        for a in status["attempts"]
    ]
    assert course == [
        ("Failed", None, 5, 2),
        ("Suspended", 3, 7, 0),
        ("Succeeded", 7, 9, None),
    ]
    assert (status["checkpoint"]["step"], status["checkpoint"]["attempt"]) == (7, 2)

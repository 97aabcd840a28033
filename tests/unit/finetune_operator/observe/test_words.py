"""What pods and Events say, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.status import FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.judge.pod_end import End, pod_end
from finetune_operator.observe.observe import newest, observe
from finetune_operator.observe.observed import ContainerEnd, Crashes, Obstacle
from finetune_operator.plan.backends import BACKEND
from support.operator.values import at, attempt, job, stamp

Json = Any
MAKER = {"kind": "PyTorchJob", "name": "bot-a1", "uid": "workload", "controller": True}
ON_A_NODE = {"nodeName": "node-7"}


def pod(spec: Json = ON_A_NODE, **status: Json) -> Any:
    metadata = {"name": "bot-a1-master-0", "uid": "u", "ownerReferences": [MAKER]}
    metadata["creationTimestamp"] = stamp(5)
    body = {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    known = job(FineTuneJobStatus(attempts=[attempt()]))
    (found,) = observe(known, (body,), (), BACKEND).pods
    return found


def warned(events: Any) -> str | None:
    """The newest Event's message, if it is a warning."""
    sign = newest(events)
    return sign.message if sign and sign.warning else None


def test_two_events_of_one_moment_do_not_confuse() -> None:
    moment = "2026-01-01T00:00:01Z"
    first = {"type": "Warning", "message": "first", "lastTimestamp": moment}
    second = {"type": "Warning", "message": "second", "eventTime": "2026-01-01T00:00:01.900000Z"}
    assert warned([first, second]) in ("first", "second")
    well = {"type": "Normal", "message": "well", "lastTimestamp": moment}
    assert warned([well, first]) == warned([first, well]) == "first"
    assert warned([well, second]) == warned([second, well]) == "second"
    assert warned([]) is None


@pytest.mark.parametrize(
    "last",
    [
        {"lastTimestamp": "2026-01-01T00:00:09Z"},
        {"series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}},
    ],
)
def test_the_last_of_a_repeated_event_counts_not_its_first(last: Json) -> None:
    repeated = {"type": "Warning", "message": "still", "eventTime": "2026-01-01T00:00:01Z"}
    once = {"type": "Normal", "message": "well", "eventTime": "2026-01-01T00:00:05Z"}
    assert warned([once, {**repeated, **last}]) == "still"


def test_an_undated_event_is_the_oldest() -> None:
    undated = {"type": "Warning", "message": "when?"}
    dated = {"type": "Normal", "message": "well", "eventTime": "2026-01-01T00:00:05Z"}
    assert warned([undated, dated]) is None


def test_why_a_pod_failed_as_a_whole() -> None:
    seen = pod(phase="Failed", reason="Evicted", message="The node was low on memory.")
    assert (seen.reason, seen.message) == ("Evicted", "The node was low on memory.")
    assert (pod().reason, pod().message) == ("", "")


def test_a_container_that_waits_without_a_reason_is_no_obstacle() -> None:
    waits: Json = [{"name": "pytorch", "state": {"waiting": {}}}]
    assert pod(containerStatuses=waits).obstacle is None
    waits[0]["state"]["waiting"]["reason"] = "PodInitializing"
    assert pod(containerStatuses=waits).obstacle is None


RUNS: Json = {"running": {"startedAt": stamp(7)}}
WAITS: Json = [{"name": "pytorch", "state": {"waiting": {"reason": "PodInitializing"}}}]
PLACED = {"type": "PodScheduled", "status": "True"}


def test_a_pod_that_no_scheduler_looks_at_says_so() -> None:
    unseen = Obstacle("", "no scheduler has looked at it", at(5))
    assert pod(spec={}, phase="Pending").obstacle == unseen
    assert pod(spec={}, conditions=[PLACED]).obstacle is None
    assert pod(spec={}, containerStatuses=WAITS).obstacle is None, "a kubelet has"
    assert pod(phase="Pending").obstacle is None


def test_an_init_container_that_someone_put_there_and_that_goes_on_is_named() -> None:
    def first(name: str, **fields: Json) -> Any:
        spec = {"initContainers": [{"name": "mesh", "restartPolicy": "Always"}]}
        one = {"name": name, "state": RUNS, **fields}
        return pod(
            spec, conditions=[PLACED], initContainerStatuses=[one], containerStatuses=WAITS
        ).obstacle

    assert first("vault") == Obstacle("", "init container vault has not ended", at(7))
    assert first("vault", started=True) == first("vault")
    assert first("mesh", started=False) == Obstacle(
        "", "init container mesh has not started", at(7)
    )
    for fine in ("init-pytorch", "rows", "rewards"):
        assert first(fine) is None, "it has its time"
    assert first("mesh", started=True) is None
    assert first("vault", state={"terminated": {"exitCode": 0}}) is None


def test_a_pod_whose_trainer_runs_says_what_keeps_it_unready() -> None:
    def runs(trainer: Json, *others: Json, **ready: Json) -> Any:
        told = {"type": "Ready", "status": "False", "message": "unready: [proxy]", **ready}
        containers = [{"name": "pytorch", "state": trainer}, *others]
        return pod(conditions=[PLACED, told], containerStatuses=containers).obstacle

    assert runs(RUNS) == Obstacle("", "unready: [proxy]", at(7))
    assert runs(RUNS, message="") == Obstacle("", "it is not ready", at(7))
    assert runs(RUNS, status="True") is None
    assert runs({"waiting": {"reason": "PodInitializing"}}) is None
    crashes = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert runs(RUNS, {"name": "proxy", "state": crashes}) == Obstacle(
        "CrashLoopBackOff", "back-off"
    )


def test_the_words_of_a_container_that_never_ran_are_kept() -> None:
    refused = {"exitCode": 128, "reason": "StartError", "message": "no\ndriver"}
    ended = pod(
        phase="Failed", containerStatuses=[{"name": "pytorch", "state": {"terminated": refused}}]
    )
    found = pod_end(ended, 1)
    assert found == End(Reason.CONTAINER_REFUSED, "bot-a1-master-0: no driver")


def test_an_init_container_that_ended_well_is_no_failure() -> None:
    def ended(code: int) -> Json:
        return [{"name": "copy", "state": {"terminated": {"exitCode": code}}}]

    assert pod(initContainerStatuses=ended(0)).init_failure is None
    assert pod(initContainerStatuses=ended(3)).init_failure.exit_code == 3


HOSTILE = "a\n\x1b[2J" + "b" * 9_000
SHOWN = ("a \\x1b[2J" + "b" * 9_000)[:1023] + "…"


def test_what_pods_and_events_say_is_short_and_on_one_line() -> None:
    disrupted = {"type": "DisruptionTarget", "status": "True", "message": HOSTILE}
    waits = {"reason": HOSTILE, "message": HOSTILE}
    seen = pod(
        reason=HOSTILE,
        message=HOSTILE,
        conditions=[disrupted],
        containerStatuses=[{"name": "other", "state": {"waiting": waits}}],
    )
    assert (seen.reason, seen.message, seen.disrupted) == (SHOWN,) * 3
    assert (seen.obstacle.reason, seen.obstacle.message) == (SHOWN, SHOWN)
    image: Json = {"name": "other", "image": HOSTILE, "state": {"waiting": {"reason": "x"}}}
    assert pod(containerStatuses=[image]).obstacle.message == f"image {SHOWN}"
    event = {"type": "Warning", "message": HOSTILE, "lastTimestamp": "2026-01-01T00:00:01Z"}
    assert warned([event]) == SHOWN


def test_what_the_scheduler_says_is_short_and_on_one_line() -> None:
    said = {"type": "PodScheduled", "status": "False", "reason": HOSTILE, "message": HOSTILE}
    seen = pod(conditions=[said])
    assert (seen.obstacle.reason, seen.obstacle.message) == (SHOWN, SHOWN)


def test_how_a_container_ended_is_short_and_on_one_line() -> None:
    ended = {"exitCode": 1, "reason": HOSTILE, "message": "log\x1b"}
    seen = pod(
        initContainerStatuses=[
            {"name": "rewards", "restartCount": 1, "state": {"terminated": ended}}
        ],
        containerStatuses=[{"name": "pytorch", "state": {"terminated": ended}}],
    )
    assert (seen.end.reason, seen.runner_crashes.reason) == (SHOWN, SHOWN)
    assert seen.runner_crashes.words == "log\\x1b"


def test_times_that_can_not_be_are_none() -> None:
    year_0 = "0000-01-01T00:00:00Z"
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": year_0}
    ended = {"exitCode": 1, "finishedAt": "9999-12-31T23:59:59Z"}
    seen = pod(
        conditions=[scheduled],
        containerStatuses=[{"name": "pytorch", "state": {"terminated": ended}}],
    )
    assert (seen.scheduled, seen.end.finished) == (None, None)


WRONG = [None, True, 7, 1.5, "x", [], ["x", None], {}, {"x": None}]
CONDITION = {"type": "PodScheduled", "status": "False", "reason": "r", "message": "m"}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("part", ["conditions", "containerStatuses", "initContainerStatuses"])
def test_a_part_of_another_type_is_as_good_as_not_there(part: str, wrong: Json) -> None:
    assert pod(**{part: wrong}) == pod()
    assert pod(**{part: [wrong]}) == pod()


@pytest.mark.parametrize("wrong", [w for w in WRONG if w != "x"])
def test_words_of_another_type_are_as_good_as_not_said(wrong: Json) -> None:
    assert pod(phase=wrong, reason=wrong, message=wrong) == pod()
    seen = pod(conditions=[{"type": wrong}, {**CONDITION, "reason": wrong, "message": wrong}])
    assert seen.obstacle == Obstacle("", "")
    ended = {"exitCode": wrong, "reason": wrong, "message": wrong, "finishedAt": wrong}
    status = {"name": "pytorch", "state": {"terminated": ended}}
    code = 7 if wrong == 7 else 0
    assert pod(containerStatuses=[status]).end == ContainerEnd(code, "", None, None)
    runner = {"name": "rewards", "restartCount": 2, "lastState": {"terminated": ended}}
    assert pod(initContainerStatuses=[runner]).runner_crashes == Crashes(2, code, "", "")
    assert not warned([{"type": "Warning", "message": wrong, "lastTimestamp": wrong}])


def test_numbers_are_such_as_every_reader_has() -> None:
    ended = {"exitCode": -(10**30), "reason": "Error"}
    status = {"name": "pytorch", "state": {"terminated": ended}}
    assert pod(containerStatuses=[status]).end.exit_code == -(2**53 - 1)


STARTED = {"name": "init-pytorch", "state": {"running": {}}}
ENDED = {"name": "init-pytorch", "state": {"terminated": {"exitCode": 0}}}
TO_COME = {"name": "pytorch", "state": {"waiting": {"reason": "PodInitializing"}}}
SIDECAR = {"name": "rewards", "state": {"running": {}}}


@pytest.mark.parametrize(
    ("inits", "container", "made"),
    [
        ([], None, False),
        ([], TO_COME, False),
        ([TO_COME], TO_COME, False),
        ([STARTED], TO_COME, True),
        ([ENDED], TO_COME, False),
        ([{**SIDECAR, "started": True}], TO_COME, False),
        ([{**SIDECAR, "started": False}], TO_COME, True),
        ([], {"name": "pytorch", "state": {"running": {}}}, True),
        ([], {"name": "pytorch", "state": {"terminated": {"exitCode": 0}}}, True),
    ],
)
def test_a_pod_is_made_while_one_of_its_containers_has_its_time(
    inits: Json, container: Json, made: bool
) -> None:
    native = {"name": "rewards", "restartPolicy": "Always"}
    spec = {**ON_A_NODE, "initContainers": [{"name": "init-pytorch"}, native]}
    seen = pod(
        spec, initContainerStatuses=inits, containerStatuses=[container] if container else []
    )
    assert seen.made is made

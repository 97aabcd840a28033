"""Pods that try rewards for nobody, and what a deleted job left: they go."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_operator.job.errors import Stalled
from finetune_operator.judge.decide import decide
from finetune_operator.judge.fallback import hindered
from finetune_operator.judge.status import status_of
from finetune_operator.observe.observed import Child, Observed, Pod
from finetune_operator.plan.backends import BACKEND
from support.operator.reward_trials import (
    GOOD,
    SETTINGS,
    decided,
    deleted,
    digest,
    ended,
    failure,
    grpo,
    pod,
    record,
    seen,
)
from support.operator.values import NOW, UID, at, stamp


def test_a_pod_of_a_deleted_job_that_a_lost_node_keeps_is_no_obstacle() -> None:
    of = grpo()
    old = Child("Pod", "bot-rewards", "old", "old-job", None, deleting=True)
    stranger = replace(old, name="x", owner_uid=None)
    ours = Child("ServiceAccount", "bot-finetune", "a", UID, None, deleting=True)
    left = (old, ours, replace(stranger, kind="Lease"), replace(old, uid="own", owner_uid=UID))
    decision = decided(of, Observed(children=left), None, 0)
    assert decision.delete == (old,)
    assert decision.run_check


def test_a_check_that_nobody_waits_for_any_more_gives_its_place_back() -> None:
    of = grpo({"name": "h", "http": {"url": "http://j"}})
    left_over = pod(grpo())
    assert deleted(decided(of, seen(left_over), None)) == ["bot-rewards"]


def test_a_finished_job_leaves_no_pod_waiting() -> None:
    of = grpo()
    failed = decided(of, seen(), record(of, pod_uid=None), 0)
    over = hindered(failed, Stalled(Reason.BACKEND_REFUSED, "no"), NOW, SETTINGS)
    status = status_of(of, seen(), over, NOW, SETTINGS)
    stored = of.model_copy(update={"status": status})
    late = decide(stored, seen(pod(of)), at(5), SETTINGS, BACKEND, digest(of))
    assert deleted(late) == ["bot-rewards"]
    told_all = decide(stored, seen(ended(of, GOOD)), at(5), SETTINGS, BACKEND, digest(of))
    assert deleted(told_all) == [], "its log can be read"


STAGES: dict[str, tuple[list[Pod], dict[str, Any] | None]] = {
    "none yet": ([], None),
    "under way": ([pod(grpo())], {}),
    "lost": ([ended(grpo(), None, 1)], {}),
    "counted": ([ended(grpo(), None, 1)], {"failures": 1, "end_time": stamp(30)}),
    "pausing": ([], {"failures": 1, "end_time": stamp(30)}),
    "refused": ([ended(grpo(), failure(Reason.REWARD_INVALID), 30)], {}),
    "passed": ([ended(grpo(), GOOD)], {}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_deleted_job_left_goes_at_every_stage(stage: str) -> None:
    pods, fields = STAGES[stage]
    stray = Child("Lease", "bot-a7", "stray", "old-job", 7, deleting=False)
    observed = seen(*pods)
    observed = replace(observed, children=(*observed.children, stray))
    known = None if fields is None else record(grpo(), **fields)
    assert decided(grpo(), observed, known).delete.count(stray) == 1


def test_a_pod_of_a_deleted_job_is_told_to_go_once() -> None:
    old = Child("Pod", "bot-rewards", "old", "old-job", None, deleting=False)
    assert decided(grpo(), Observed(children=(old,)), None, 0).delete == (old,)

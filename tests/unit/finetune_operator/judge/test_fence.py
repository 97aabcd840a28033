"""What may still run of an attempt is waited for, whatever status says of it."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.status import AttemptState, FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import LOOK_EVERY
from finetune_operator.observe.observed import Observed, Stray
from finetune_operator.plan.backends import BACKEND
from support.operator.decisions import FAILED, SETTINGS, WORKLOAD, decided, names, stopping
from support.operator.values import at, attempt, ended, job, pod

DELETED = replace(WORKLOAD, deleting=True)
LATE = 100_000  # seconds, long after any fence


@pytest.mark.parametrize(
    ("seconds", "pods", "children", "starts"),
    [
        (LATE, (pod(1),), (WORKLOAD,), False),
        (LATE, (pod(1, due=at(221)),), (WORKLOAD,), False),
        (LATE, (pod(1),), (), False),
        (LATE, (pod(0, due=at(221)), pod(1)), (), False),
        (519, (pod(1),), (DELETED,), False),
        (520, (pod(1),), (DELETED,), True),
        (520, (pod(1, due=at(221)),), (), False),
        (521, (pod(1, due=at(221)),), (), True),
        (LATE, (ended(1, 1),), (WORKLOAD,), True),
        (LATE, (), (), True),
    ],
)
def test_nothing_starts_beside_pods_of_an_attempt_that_status_says_is_over(
    seconds: int, pods: Any, children: Any, starts: bool
) -> None:
    over = attempt(reason=Reason.POD_LOST, **FAILED)
    made = decided(over, seconds=seconds, pods=pods, children=children)
    assert (made.run is not None) is starts
    assert names(made) == [f"{c.kind}/{c.name}" for c in children if not c.deleting]
    if not starts:
        assert (made.verdict.reason, made.after) == (Reason.STOPPING, LOOK_EVERY)
        assert "; still there: " in made.verdict.message


@pytest.mark.parametrize(
    ("seconds", "uid", "owner", "closed"),
    [
        (519, None, "PyTorchJob bot-a1", False),
        (520, None, "PyTorchJob bot-a1", True),
        (101, "workload", "PyTorchJob bot-a1", True),
        (101, None, "PyTorchJob bot-a2", True),
        (101, None, "nobody", True),
    ],
)
def test_pods_of_a_workload_that_went_before_its_uid_was_recorded_are_waited_for(
    seconds: int, uid: str | None, owner: str, closed: bool
) -> None:
    status = FineTuneJobStatus(attempts=[stopping(workload_uid=uid)])
    seen = Observed(strays=(Stray("bot-a1-master-0", 1, owner),))
    made = decide(job(status), seen, at(seconds), SETTINGS, BACKEND, None)
    assert (made.attempts[0].state is AttemptState.FAILED) is closed

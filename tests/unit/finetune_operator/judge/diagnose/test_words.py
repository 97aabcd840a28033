"""An end and an obstacle name the object that they are about, and nothing that is not known."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.judge.blocked import blocked
from finetune_operator.judge.diagnose import end_of
from finetune_operator.observe.observed import InitFailure, Observed, Obstacle
from finetune_operator.plan.backends import BACKEND
from support.operator.decisions import WORKLOAD
from support.operator.values import at, attempt, ended, job, pod


@pytest.mark.parametrize(
    ("pods", "outcome", "message"),
    [
        ((ended(0, 99),), None, "bot-a1-master-0 ended with code 99 and no result"),
        (
            (pod(0, phase="Failed", running=False, init_failure=InitFailure("mesh", 3)),),
            None,
            "bot-a1-master-0: init container mesh ended with code 3",
        ),
        ((), True, "PyTorchJob bot-a1 succeeded, but no pod tells how"),
        ((), False, "PyTorchJob bot-a1 failed, but no pod tells how"),
        ((pod(0, due=at(0), disrupted="why"),), None, "bot-a1-master-0: why"),
        ((pod(0, due=at(0)),), None, "bot-a1-master-0 was deleted"),
    ],
)
def test_an_end_says_of_whom_it_speaks(pods: Any, outcome: bool | None, message: str) -> None:
    observed = Observed((replace(WORKLOAD, outcome=outcome),), pods)
    end = end_of(job(), attempt(), observed, at(60), BACKEND.workload)
    assert end is not None
    assert end.message == message


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ((), "PyTorchJob bot-a1 was deleted"),
        ((replace(WORKLOAD, uid="other"),), "PyTorchJob bot-a1 was deleted or replaced"),
    ],
)
def test_a_lost_workload_is_named(children: Any, message: str) -> None:
    end = end_of(job(), attempt(), Observed(children), at(60), BACKEND.workload)
    assert end is not None
    assert end.message == message


def test_a_secret_that_the_job_does_not_name_is_not_said_to_be_named() -> None:
    stuck = pod(
        running=False, phase="Pending", obstacle=Obstacle("Waiting", 'secret "other" not found')
    )
    block = blocked(job(), [stuck], Observed(pods=(stuck,)), at(0))
    assert block is not None
    assert block.message == 'Secret "other" does not exist in namespace team'

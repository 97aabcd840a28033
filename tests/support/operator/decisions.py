"""Decisions on hand-made attempts, pods and children, at a second of one's choice."""

from typing import Any

from finetune_api.status import (
    AttemptState,
    FineTuneJobStatus,
)
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Decision
from finetune_operator.observe.observed import Child, Observed
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.values import (
    UID,
    at,
    attempt,
    job,
    pod,
    stamp,
)

SETTINGS = Settings(
    trainer_image="trainer:1",
    start_timeout_seconds=600,
    fence_timeout_seconds=300,
    retry_base_seconds=10,
)
WORKLOAD = Child("PyTorchJob", "bot-a1", "workload", UID, 1, False, workload=True)
LEASE = Child("Lease", "bot-a1", "lease", UID, 1, False)
ACCOUNT = Child("ServiceAccount", "bot-finetune", "account", UID, None, False)
PODS = (pod(0), pod(1))
RUNNING = {"pod_uids": ["pod-0", "pod-1"], "running_time": stamp(1)}
FAILED = {"state": AttemptState.FAILED, "end_time": stamp(100), "message": "why"}


def decided(
    *attempts: Any,
    seconds: float = 0,
    pods: Any = (),
    children: Any = (),
    conditions: Any = None,
    **spec: Any,
) -> Decision:
    status = FineTuneJobStatus(attempts=list(attempts) or None, conditions=conditions)
    return decide(
        job(status, **spec), Observed(children, pods), at(seconds), SETTINGS, BACKEND, None
    )


def names(decision: Decision) -> list[str]:
    return [f"{c.kind}/{c.name}" for c in decision.delete]


def last_state(decision: Decision) -> AttemptState:
    return decision.attempts[-1].state


def stopping(**fields: Any) -> Any:
    known = {"state": AttemptState.STOPPING, "end_time": stamp(100), "message": "why"}
    return attempt(**{**RUNNING, "reason": Reason.POD_LOST, **known, **fields})

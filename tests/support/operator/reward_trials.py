"""The trial of a job's rewards as the cluster shows it, and what is decided on it."""

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.status import FineTuneJobStatus, RewardCheckStatus
from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, Result
from finetune_operator.job.method import isolated_rewards
from finetune_operator.job.names import Object, content_digest
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Course, Decision
from finetune_operator.observe.observed import Child, ContainerEnd, Observed, Pod
from finetune_operator.plan.backends import BACKEND
from finetune_operator.plan.reward_check import reward_check
from finetune_operator.settings import Settings
from support.operator.values import UID, at, job, stamp

SETTINGS = Settings(
    trainer_image="trainer:1",
    retry_base_seconds=10,
    start_timeout_seconds=60,
    max_infrastructure_attempts=3,
)
PYTHON = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}
GOOD = Result(attempt=1, outcome=Outcome.SUCCEEDED, reason=Reason.SUCCEEDED, message="16 scores")


def grpo(*rewards: dict[str, Any], **spec: Any) -> FineTuneJob:
    return job(method={"type": "GRPO", "grpo": {"rewards": list(rewards) or [PYTHON]}}, **spec)


def tried_by(of: FineTuneJob) -> Object:
    """Return the pod that would try the rewards."""
    wanted = reward_check(of, "trainer:1")
    assert wanted is not None
    (pod,) = wanted.started
    return pod


def digest(of: FineTuneJob) -> str | None:
    """Return what tells whether the rewards are still those that were tried."""
    return content_digest(tried_by(of)) if isolated_rewards(of.spec) else None


def record(of: FineTuneJob, **fields: Any) -> RewardCheckStatus:
    usual = {"state": "Running", "plan": digest(of), "start_time": stamp(0), "pod_uid": "check"}
    return RewardCheckStatus.model_validate({**usual, **fields})


def pod(of: FineTuneJob, **fields: Any) -> Pod:
    usual: dict[str, Any] = {
        "name": "bot-rewards",
        "uid": "check",
        "attempt": 1,
        "node_rank": 0,
        "phase": "Running",
        "reason": "",
        "message": "",
        "disrupted": None,
        "scheduled": at(1),
        "running": True,
        "due": None,
        "gone": False,
        "obstacle": None,
        "init_failure": None,
        "end": None,
        "digest": digest(of),
    }
    return Pod(**{**usual, **fields})


def ended(of: FineTuneJob, result: Result | None, code: int = 0, **fields: Any) -> Pod:
    end = ContainerEnd(code, "", at(20), result)
    return pod(of, phase="Failed" if code else "Succeeded", running=False, end=end, **fields)


def failure(reason: Reason, message: str = "told") -> Result:
    return Result(attempt=1, outcome=Outcome.FAILED, reason=reason, message=message)


def seen(*pods: Pod, warnings: dict[str, str] | None = None) -> Observed:
    there = tuple(
        Child("Pod", p.name, p.uid, UID, None, deleting=p.due is not None)
        for p in pods
        if not p.gone
    )
    return Observed(children=there, checks=pods, warnings=warnings or {})


def decided(
    of: FineTuneJob,
    observed: Observed,
    known: RewardCheckStatus | None,
    seconds: float = 30,
    settings: Settings = SETTINGS,
) -> Decision:
    stored = of.model_copy(update={"status": FineTuneJobStatus(reward_check=known)})
    return decide(stored, observed, at(seconds), settings, BACKEND, digest(of))


def told(decision: Decision) -> tuple[Course, Reason]:
    return decision.verdict.course, decision.verdict.reason


def deleted(decision: Decision) -> list[str]:
    return [child.name for child in decision.delete]

"""The trial of a job's rewards before the first attempt. Pure.

It commits nothing, so a pod that is lost is simply made again, whether or not its node ever
confirms that it has gone; only the verdict must not get lost.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from finetune_api.status import RewardCheckState, RewardCheckStatus
from finetune_contract.reasons import Reason, Retry, retry_of
from finetune_contract.result import Outcome
from finetune_operator.job.credentials import with_secrets_named
from finetune_operator.job.method import isolated_rewards
from finetune_operator.job.resources import POD
from finetune_operator.job.times import rfc3339, timestamp
from finetune_operator.job.workers import extended_resources
from finetune_operator.judge.active import (
    blocked_verdict,
    deadline,
    next_look,
    start_timeout,
    stuck_pods,
)
from finetune_operator.judge.blocked import blocked
from finetune_operator.judge.decision import LOOK_EVERY, Course, Decision, Scene, Verdict
from finetune_operator.judge.diagnose import MORE_MEMORY
from finetune_operator.judge.pod_end import End, pod_end, result_of
from finetune_operator.judge.retry import doubled
from finetune_operator.judge.wording import bounded, with_advice
from finetune_operator.observe.observed import Child, Pod

# From the time a pod has a node: the image's pull, the rows, and two batches of each reward, which
# its own timeoutSeconds bounds. Whatever hangs beyond that would hang for ever.
TIME_TO_TRY = timedelta(hours=1)
_ATTEMPT = 1  # of which the pod's Result speaks: the one that is to follow


def checked(s: Scene) -> Decision | RewardCheckStatus | None:
    """Return what has to happen before the first attempt; else the record of a check that passed,
    or None for a job without any that can be tried."""
    if s.trial is None:
        return None
    known = s.status.reward_check
    if known is None or known.plan != s.trial:
        known = RewardCheckStatus(state=RewardCheckState.RUNNING, plan=s.trial)
    if known.state is RewardCheckState.PASSED:
        return known
    s = replace(s, status=s.status.model_copy(update={"reward_check": known}))
    if (end := deadline(s)) is not None:
        return _failed(s, known, end)
    there = next((p for p in s.observed.checks if not p.gone), None)
    if there is not None and _is_over(s, known, there):
        return _cleared(s, known, there)
    if known.end_time is not None:
        return _next(s, known)
    pod = there or next((p for p in s.observed.checks if p.uid == known.pod_uid), None)
    if pod is not None:
        return _follow(s, known, pod)
    if known.pod_uid is not None:
        return _ended(s, known, End(Reason.POD_LOST, "the pod that tried the rewards vanished"))
    return _run(s, known)


def check_refused(decision: Decision, end: End, now: datetime) -> Decision:
    """Return the decision after the pod that tries the rewards could not be made."""
    assert decision.reward_check is not None, "only an attempt's or a check's objects are refused"
    failed = _closed(decision.reward_check, end.message, now, state=RewardCheckState.FAILED)
    verdict = Verdict(Course.FAILED, end.reason, with_advice(end.message, end.reason))
    return Decision(decision.attempts, verdict, reward_check=failed)


def paused(s: Scene) -> RewardCheckStatus | None:
    """Return the record of a suspended job: a check under way begins anew."""
    known = s.status.reward_check
    if known is None or known.state is not RewardCheckState.RUNNING:
        return known
    return known.model_copy(update={"pod_uid": None, "start_time": None, "end_time": None})


def tried_anew(known: RewardCheckStatus | None) -> RewardCheckStatus | None:
    """Return the record of a check that failed, to begin anew once its last pod is out of the way;
    any other stands."""
    if known is None or known.state is not RewardCheckState.FAILED:
        return known
    anew = {"state": RewardCheckState.RUNNING, "failures": 0, "start_time": None}
    return known.model_copy(update=anew)


def unfinished_checks(s: Scene) -> tuple[Child, ...]:
    """Return the pods that try the job's rewards, to be deleted where nobody waits for them: also
    one that should have gone, which on a node that does not answer it never does."""
    unfinished = {p.uid for p in s.observed.checks if not p.finished and not _time_to_go(s, p)}
    return tuple(c for c in s.observed.children if c.uid in unfinished)


def checks_go(s: Scene) -> timedelta | None:
    """Return when the next pod that tries the rewards should have gone; None if none is going."""
    lefts = (_time_to_go(s, p) for p in s.observed.checks if not p.finished)
    return min((left for left in lefts if left is not None), default=None)


def _time_to_go(s: Scene, pod: Pod) -> timedelta | None:
    return pod.due - s.now if pod.due and pod.due > s.now else None


def _is_over(s: Scene, known: RewardCheckStatus, pod: Pod) -> bool:
    """Tell whether a pod has no part in the check: it was counted, or is of another spec."""
    counted = known.end_time is not None and pod.uid == known.pod_uid
    not_ours = pod.uid != known.pod_uid and pod.due is not None
    return counted or not_ours or pod.digest != s.trial


def _cleared(s: Scene, known: RewardCheckStatus, pod: Pod) -> Decision:
    child = next(c for c in s.observed.children if c.uid == pod.uid)
    text = f"{pod.name} has to go before the rewards can be tried again"
    waits = s.go_on(Reason.STOPPING, text)
    return replace(waits, delete=(*waits.delete, child), after=LOOK_EVERY, reward_check=known)


def _next(s: Scene, known: RewardCheckStatus) -> Decision:
    """Make the next pod, once the last one's end is long enough ago."""
    ended = timestamp(known.end_time)
    assert ended is not None, "it has ended"
    left = ended + doubled(known.failures, s.settings) - s.now
    if left <= timedelta():
        return _run(s, known.model_copy(update={"pod_uid": None, "end_time": None}))
    return _retrying(s, known, left)


def _retrying(s: Scene, known: RewardCheckStatus, after: timedelta) -> Decision:
    text = bounded(f"trying the rewards ended: {known.message}; they are tried again")
    return replace(s.go_on(Reason.RETRYING, text), after=after, reward_check=known)


def _run(s: Scene, known: RewardCheckStatus) -> Decision:
    begun = known.model_copy(update={"start_time": known.start_time or rfc3339(s.now)})
    starts = s.go_on(Reason.PENDING, _trying(s))
    gone = (*starts.delete, *_left_over(s))
    return replace(starts, delete=gone, after=LOOK_EVERY, reward_check=begun, run_check=True)


def _left_over(s: Scene) -> tuple[Child, ...]:
    """Return the pods of deleted jobs of the name whose nodes do not let them go."""
    pods = (c for c in s.observed.children if c.kind == POD and c.deleting)
    return tuple(c for c in pods if c.owner_uid != s.job.uid)


def _trying(s: Scene) -> str:
    return f"the rewards are tried on a few rows before the first attempt{_left_out(s)}"


def _left_out(s: Scene) -> str:
    grpo = s.job.spec.method.grpo
    tried = {reward.name for reward in isolated_rewards(s.job.spec)}
    names = [r.name for r in (grpo.rewards if grpo else ()) if r.name not in tried]
    return f"; not tried, as services or models: {', '.join(names)}" if names else ""


def _follow(s: Scene, known: RewardCheckStatus, pod: Pod) -> Decision | RewardCheckStatus:
    known = known.model_copy(update={"pod_uid": pod.uid})
    done, result = pod.end, result_of(pod, _ATTEMPT)
    if done and done.exit_code == 0 and result and result.outcome is Outcome.SUCCEEDED:
        return _passed(s, known, result.message)
    end = _end_of(s, pod)
    if end is None:
        return _waiting(s, known, pod)
    if end.reason is Reason.SANDBOX_UNAVAILABLE and extended_resources(s.job):
        # The attempts run on nodes with devices, of which this one need not be.
        why = f"the node of the trial can not confine the rewards ({end.message})"
        return _passed(s, known, f"not tried: {why}; the attempt's own runner decides")
    return _ended(s, known, end)


def _passed(s: Scene, known: RewardCheckStatus, message: str) -> RewardCheckStatus:
    return _closed(known, message + _left_out(s), s.now, state=RewardCheckState.PASSED)


def _closed(
    known: RewardCheckStatus, message: str, now: datetime, **update: Any
) -> RewardCheckStatus:
    """Return the record of a check or of a pod that has ended."""
    end = {"end_time": rfc3339(now), "message": bounded(message)}
    return known.model_copy(update={**end, **update})


def _end_of(s: Scene, pod: Pod) -> End | None:
    end = pod_end(pod, _ATTEMPT)
    if end is None and pod.gone:
        return End(Reason.POD_LOST, f"{pod.name} was deleted")
    if end is None or end.reason is not Reason.OUT_OF_MEMORY:
        return end and replace(end, message=with_secrets_named(s.job, end.message))
    # No micro-batch is to blame here.
    if pod.init_failure is not None:
        return End(Reason.TRAINER_ERROR, f"{end.message} while the rows were read")
    return End(Reason.REWARD_INVALID, f"{end.message}: {MORE_MEMORY}")


def _waiting(s: Scene, known: RewardCheckStatus, pod: Pod) -> Decision:
    took = f"{pod.name} did not end within {TIME_TO_TRY.total_seconds():g} seconds"
    over = pod.scheduled + TIME_TO_TRY - s.now if pod.scheduled else None
    if over is not None and over <= timedelta():
        why = f": {pod.obstacle.reason}: {pod.obstacle.message}" if pod.obstacle else ""
        return _ended(s, known, End(Reason.TRAINER_ERROR, took + why))
    block = blocked(s.job, [pod], s.observed, s.now)
    if (end := start_timeout(s, block)) is not None:
        return _failed(s, known, end)
    waits = s.go_on(Reason.PENDING, _trying(s))
    return replace(
        waits,
        verdict=blocked_verdict(block) if block else waits.verdict,
        after=next_look(s, [pod], block, pod.running, over),
        reward_check=known,
        look=() if block else stuck_pods(s, [pod]),
    )


def _ended(s: Scene, known: RewardCheckStatus, end: End) -> Decision:
    """Count a pod that ended without success; what it told may be the last word."""
    failures = known.failures + 1
    counted = _closed(known, end.message, s.now, failures=failures)
    match retry_of(end.reason, begun=False):
        case Retry.INFRASTRUCTURE | Retry.WAIT:
            allowed = s.settings.max_infrastructure_attempts
        case Retry.COUNTED | Retry.LESS_MEMORY:
            allowed = s.job.spec.run_policy.max_attempts
        case _:
            return _failed(s, known, end)
    if failures >= allowed:
        return _failed(s, counted, End(end.reason, f"{end.message}; it was try {failures}"))
    # It may rest on the pod's absence, which a lagging cache also shows.
    again = _retrying(s, counted, doubled(failures, s.settings))
    return replace(again, confirm=end.reason is Reason.POD_LOST)


def _failed(s: Scene, known: RewardCheckStatus, end: End) -> Decision:
    over = known.end_time or rfc3339(s.now)
    record = _closed(known, end.message, s.now, state=RewardCheckState.FAILED, end_time=over)
    failed = s.fail(end)
    gone = (*failed.delete, *unfinished_checks(s))
    return replace(failed, delete=gone, reward_check=record)

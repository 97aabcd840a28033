"""(job, observed, now) -> Decision: start an attempt, wait, retry, stop, finish. Pure.

A Decision holds the record of attempts as it must stand *before* anything is touched, and then what
to make and what to delete. Steps call the next one where nothing has to happen in between, so one
decision goes as far as it can.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.job import FineTuneJob
from finetune_api.status import (
    ArtifactStatus,
    Attempt,
    AttemptState,
    ConditionType,
    FineTuneJobStatus,
    RetryStatus,
)
from finetune_contract.model import filled
from finetune_contract.reasons import Reason
from finetune_contract.result import PublishedArtifact
from finetune_operator.job.backend import Backend
from finetune_operator.job.footprint import Footprint
from finetune_operator.job.run_config import recipe
from finetune_operator.job.stored import find, finished, finished_time
from finetune_operator.job.times import rfc3339, timestamp
from finetune_operator.job.workers import image
from finetune_operator.judge.active import deadline, follow, names_taken, put_right
from finetune_operator.judge.decision import LOOK_EVERY, Course, Decision, Scene, Verdict
from finetune_operator.judge.diagnose import published
from finetune_operator.judge.fence import due, given_up, outlives, remains, sent_off
from finetune_operator.judge.pod_end import End
from finetune_operator.judge.retry import backoff, gives_up, next_footprint
from finetune_operator.judge.reward_check import (
    checked,
    checks_go,
    paused,
    tried_anew,
    unfinished_checks,
)
from finetune_operator.judge.told import accounted, learned, told
from finetune_operator.judge.wording import attempt_end, bounded, memory_told
from finetune_operator.observe.observed import Observed
from finetune_operator.settings import Settings

_UNDER_WAY = (AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING)


def decide(
    job: FineTuneJob,
    observed: Observed,
    now: datetime,
    settings: Settings,
    backend: Backend,
    trial: str | None,
) -> Decision:
    """Return what to record and to do next. `job.status` is the status as stored; `trial` is the
    digest of the pod that would try the job's rewards, None for a job without any to try."""
    status = job.status or FineTuneJobStatus()
    attempts = tuple(status.attempts or ())
    scene = Scene(job, status, attempts, observed, now, settings, backend, trial)
    decision = sent_off(scene, _decide(scene))
    return replace(decision, within=scene.deadline_left())


def _decide(scene: Scene) -> Decision:
    if finished(scene.status):
        return _let_go_on(scene) or at_rest(scene)
    last = scene.attempts[-1] if scene.attempts else None
    if last is not None and last.state in _UNDER_WAY:
        last = put_right(scene, last)
        return _active(scene.with_last(last), last)
    if last is not None and last.state is AttemptState.SUCCEEDED:
        return _succeeded_before(scene, last)
    return _between(scene)


def _let_go_on(s: Scene) -> Decision | None:
    """Return the decision on a job that has failed and that the user lets go on; None if not."""
    wanted, known = s.job.spec.run_policy.retries, s.status.retry
    succeeded = find(s.status, ConditionType.SUCCEEDED)
    failed = succeeded is not None and succeeded.status == "False"
    if not failed or wanted <= (known.retries if known else 0):
        return None
    last = s.attempts[-1].number if s.attempts else 0
    retry = RetryStatus(retries=wanted, after_attempt=last)
    check = tried_anew(s.status.reward_check)
    s = replace(s, status=s.status.model_copy(update={"retry": retry, "reward_check": check}))
    return replace(_between(s), retry=retry)


def _active(s: Scene, attempt: Attempt) -> Decision:
    """Follow an attempt to its end; one that published has succeeded, whatever else happened."""
    artifact = published(s.job, attempt, s.observed.pods_of(attempt.number))
    if artifact is not None:
        return _succeeded(s, attempt, artifact)
    if attempt.state is AttemptState.STOPPING:
        return _stopping(s, attempt)
    outcome = follow(s, attempt)
    if isinstance(outcome, Decision):
        return outcome
    return _stopping(replace(s, confirm=outcome.absent), _ended(attempt, outcome, s.now))


def _succeeded(s: Scene, attempt: Attempt, artifact: PublishedArtifact) -> Decision:
    said = told(s.job, s.observed, attempt.number)
    done = learned(attempt, said).model_copy(
        update={
            "state": AttemptState.SUCCEEDED,
            "end_time": attempt.end_time or rfc3339(s.now),
            "reason": Reason.SUCCEEDED,
            "message": None,
            "failed_rank": None,
            "pod_uids": None,
            "last_step": said.last_step,
            "lost_steps": None,
        }
    )
    text = f"attempt {attempt.number} published {artifact.uri} ({artifact.digest})"
    return Decision(
        s.with_last(done).attempts,
        Verdict(Course.SUCCEEDED, Reason.SUCCEEDED, text),
        delete=s.others(attempt.number),
        artifact=filled(ArtifactStatus, artifact, attempt=attempt.number),
    )


def _succeeded_before(s: Scene, attempt: Attempt) -> Decision:
    """Say again what the conditions lack: a job that has succeeded never runs again."""
    text = f"attempt {attempt.number} published the adapter"
    return Decision(
        s.attempts,
        Verdict(Course.SUCCEEDED, Reason.SUCCEEDED, text),
        delete=s.others(attempt.number),
        artifact=s.status.artifact,
    )


def _ended(attempt: Attempt, end: End, now: datetime) -> Attempt:
    return attempt.model_copy(
        update={
            "state": AttemptState.STOPPING,
            "end_time": rfc3339(now),
            "reason": end.reason,
            "message": bounded(end.message),
            "failed_rank": end.rank,
        }
    )


def _stopping(s: Scene, attempt: Attempt) -> Decision:
    """Wait until nothing of the attempt can run any more, or the fence's time is over."""
    attempt = accounted(attempt, told(s.job, s.observed, attempt.number), s.status)
    s = s.with_last(attempt)
    workload = s.observed.workload(s.job.uid, attempt.number)
    live = [p for p in s.observed.may_run() if p.attempt == attempt.number]
    ended = timestamp(attempt.end_time)
    assert ended is not None, "an attempt that stops has an end"
    quiet = not live and (workload is None or workload.outcome is not None)
    overdue = due(s, ended, live)
    fenced = given_up(s, ended, live)
    if quiet or s.now >= fenced:
        suspended = attempt.reason == Reason.SUSPENDED
        state = AttemptState.SUSPENDED if suspended else AttemptState.FAILED
        closed = attempt.model_copy(update={"state": state, "pod_uids": None})
        confirm = s.confirm or (quiet and workload is None)
        return _between(replace(s.with_last(closed), confirm=confirm))
    told_to_stop = attempt.reason in (Reason.DEADLINE_EXCEEDED, Reason.START_TIMEOUT)
    last_one = gives_up(s.job, s.attempts, s.settings, s.counted_after) is not None
    # Ended pods stay, for their logs. Only if the others do so too is the whole workload deleted.
    cleaned = ended + s.backend.clean_up
    spared = last_one and not told_to_stop and s.now < cleaned
    late = remains(workload, live, fenced) if s.now >= overdue else ""
    text = attempt_end(attempt) + late
    waits = s.go_on(Reason.STOPPING, text, attempt.number if spared else None)
    look = cleaned if spared else overdue if s.now < overdue else fenced
    return replace(waits, after=look - s.now)


def _between(s: Scene) -> Decision:
    """No attempt is under way: finish, wait, or start the next one."""
    last = s.attempts[-1] if s.attempts else None
    if last is not None and (end := _final_end(s, last)) is not None:
        return s.fail(end, last.number)
    if s.job.spec.run_policy.suspend:
        verdict = Verdict(Course.SUSPENDED, Reason.SUSPENDED, "spec.runPolicy.suspend is true")
        gone = (*s.others(None), *unfinished_checks(s))
        return Decision(s.attempts, verdict, delete=gone, confirm=s.confirm, reward_check=paused(s))
    if last is not None and (wait := _backoff_left(s, last)) > timedelta():
        return replace(s.go_on(Reason.RETRYING, _follows(s, last)), after=wait)
    return _start(s) if s.attempts else _first(s)


def _first(s: Scene) -> Decision:
    """Start the first attempt, once the code that is to score it has been tried."""
    found = checked(s)
    if isinstance(found, Decision):
        return found
    start = _start(s)
    return replace(start, reward_check=found, delete=(*start.delete, *unfinished_checks(s)))


def _final_end(s: Scene, last: Attempt) -> End | None:
    """Return the job's failure, if no attempt may follow the last one."""
    why = gives_up(s.job, s.attempts, s.settings, s.counted_after)
    if why is None:
        return deadline(s)
    memory = _memory(s, last) if last.reason == Reason.OUT_OF_MEMORY else ""
    text = "; ".join(part for part in (attempt_end(last), why, memory) if part)
    return End(Reason(last.reason or ""), text)


def _memory(s: Scene, last: Attempt) -> str:
    """Return what an attempt that ran out of memory was estimated to need, beside the limit, and
    what was not tried."""
    plan = told(s.job, s.observed, last.number).plan or s.status.plan
    parts = [memory_told(s.job, plan.memory if plan else None)]
    if change := _change(s, last):
        parts.append(f"not tried: {change}")
    return "; ".join(part for part in parts if part)


def _follows(s: Scene, last: Attempt) -> str:
    """Return how the last attempt ended and what follows it, with what is then otherwise."""
    text = f"{attempt_end(last)}; attempt {last.number + 1} follows"
    change = _change(s, last) if last.reason == Reason.OUT_OF_MEMORY else ""
    return f"{text} with {change}" if change else text


def _change(s: Scene, last: Attempt) -> str:
    return next_footprint(s.job, s.attempts).changed(Footprint.of(s.job, last))


def _backoff_left(s: Scene, last: Attempt) -> timedelta:
    ended = timestamp(last.end_time)
    assert ended is not None, "an attempt that is over has an end"
    return ended + backoff(s.attempts, s.settings, s.counted_after) - s.now


def _start(s: Scene) -> Decision:
    number = s.attempts[-1].number + 1 if s.attempts else 1
    if (waits := outlives(s, number)) is not None:
        return waits
    attempt = Attempt(
        number=number,
        state=AttemptState.STARTING,
        generation=s.job.generation,
        recipe_digest=recipe(s.job.spec).digest(),
        image=image(s.job, s.settings.trainer_image),
        start_time=rfc3339(s.now),
        **next_footprint(s.job, s.attempts).record(),
    )
    made = (*s.attempts, attempt)
    if (taken := names_taken(s, number)) is not None:
        return replace(taken, attempts=made)  # it has begun, and waits
    starts = s.go_on(Reason.PENDING, f"attempt {number} is starting", number)
    # The last one's Lease must not stand beside it, whether or not the cache shows it.
    confirm = s.confirm or bool(s.attempts)
    return replace(starts, attempts=made, run=attempt, after=LOOK_EVERY, confirm=confirm)


def at_rest(s: Scene) -> Decision:
    """Return the decision on a finished job: nothing starts again; the children go when their time
    is over."""
    last = s.attempts[-1].number if s.attempts else None
    ttl = s.job.spec.run_policy.ttl_seconds_after_finished
    left = None if ttl is None else finished_time(s.status) + timedelta(seconds=ttl) - s.now
    verdict, artifact = Verdict(Course.KEPT, Reason.SUCCEEDED), s.status.artifact
    if left is not None and left <= timedelta():
        gone = s.others(None, shared=False)
        return Decision(s.attempts, verdict, delete=gone, artifact=artifact)
    spare = finished_time(s.status) + s.backend.clean_up - s.now
    lasts = last is not None and _runs_on(s, last)
    gone = s.others(None if lasts and spare <= timedelta() else last)
    looks = [left, spare if lasts and spare > timedelta() else None, checks_go(s)]
    return Decision(
        s.attempts,
        verdict,
        delete=(*gone, *unfinished_checks(s)),
        after=min((look for look in looks if look is not None), default=None),
        artifact=artifact,
    )


def _runs_on(s: Scene, attempt: int) -> bool:
    """Tell whether something holds an attempt's pods, such as a sidecar without an end."""
    workload = s.observed.workload(s.job.uid, attempt)
    if workload is None:
        return False
    return workload.outcome is None or any(not p.finished for p in s.observed.pods_of(attempt))

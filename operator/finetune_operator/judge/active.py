"""An attempt under way: has it ended, and if not, what is seen of it and what does it wait for?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from finetune_api.status import Attempt, AttemptState
from finetune_contract.reasons import Reason
from finetune_operator.job.stored import AHEAD
from finetune_operator.job.times import rfc3339, timestamp
from finetune_operator.job.workers import image
from finetune_operator.judge.blocked import Blocked, blocked, unmade
from finetune_operator.judge.decision import LOOK_EVERY, Course, Decision, Scene, Verdict
from finetune_operator.judge.diagnose import SETTLE, end_of
from finetune_operator.judge.fence import outlives
from finetune_operator.judge.pod_end import End
from finetune_operator.judge.retry import trained
from finetune_operator.judge.standstill import Standstill, standstill
from finetune_operator.judge.told import corrected, learned, told
from finetune_operator.judge.wording import bounded, with_advice
from finetune_operator.observe.observed import Child, Pod

# A kubelet tells why a container does not start by Events only; they are read after this long, and
# those of so many pods.
LOOK_AFTER = timedelta(seconds=3)
_LOOKS = 5


def put_right(s: Scene, attempt: Attempt) -> Attempt:
    """Return the record of an attempt under way as it can have been: it began before what it made,
    as far as that is known to be its own, and what is yet to be made has the image that the job and
    this operator say."""
    workload = s.observed.workload(s.job.uid, attempt.number)
    starting = attempt.state is AttemptState.STARTING
    if starting and workload is None and attempt.workload_uid is None:
        return attempt.model_copy(update={"image": image(s.job, s.settings.trainer_image)})
    known = workload is not None and workload.uid == attempt.workload_uid
    began, made = timestamp(attempt.start_time), workload.created if workload and known else None
    if began is None or made is None or began <= made + AHEAD:
        return attempt
    return attempt.model_copy(update={"start_time": rfc3339(made)})


def follow(s: Scene, attempt: Attempt) -> End | Decision:
    """Return how the attempt ends (without success), or what to record of it as it goes on."""
    end = end_of(s.job, attempt, s.observed, s.now, s.backend.workload)
    if end is not None and end.settled:
        return end
    # Whoever wants it to stop need not wait for the others to tell why it is ending.
    if (stop := deadline(s) or _suspension(s)) is not None:
        return stop
    if end is not None:
        return replace(s.go_on(Reason.STOPPING, end.message, attempt.number), after=SETTLE)
    block, still = _block(s, attempt), standstill(s, attempt)
    return still.end or start_timeout(s, block) or _go_on(s, attempt, block, still)


def deadline(s: Scene) -> End | None:
    """Return the end by runPolicy.activeDeadlineSeconds, if it has come."""
    left = s.deadline_left()
    if left is None or left > timedelta():
        return None
    seconds = s.job.spec.run_policy.active_deadline_seconds
    text = f"the attempts ran {seconds} seconds together, which is the limit"
    return End(Reason.DEADLINE_EXCEEDED, text)


def _suspension(s: Scene) -> End | None:
    if not s.job.spec.run_policy.suspend:
        return None
    return End(Reason.SUSPENDED, "spec.runPolicy.suspend is true")


def _pods(s: Scene, attempt: Attempt) -> list[Pod]:
    return [p for p in s.observed.pods_of(attempt.number) if not p.gone]


def _block(s: Scene, attempt: Attempt) -> Blocked | None:
    """Return what keeps the attempt from starting. It may wait for a queue or for room on nodes as
    long as it likes, but not while pods of it hold theirs for that."""
    pods = _pods(s, attempt)
    block = unmade(s.job, attempt, pods, s.observed, s.now)
    block = _name_taken(s, attempt) or block or blocked(s.job, pods, s.observed, s.now)
    if block is None or block.reason not in (Reason.UNSCHEDULABLE, Reason.QUEUED):
        return block
    held = [p.scheduled for p in pods if p.scheduled is not None]
    return replace(block, since=min(held, default=None))


def _name_taken(s: Scene, attempt: Attempt) -> Blocked | None:
    """Return what keeps the workload from being made; a job that has trained waits for it to go."""
    verdict = in_the_way(s, attempt.number)
    if verdict is None or s.observed.workload(s.job.uid, attempt.number) is not None:
        return None
    since = None if trained(s.attempts) else timestamp(attempt.start_time)
    return Blocked(verdict.reason, verdict.message, since)


def start_timeout(s: Scene, block: Blocked | None) -> End | None:
    """Return the end of pods that have waited too long for what only the user can bring."""
    left = _time_to_start(s, block)
    if block is None or left is None or left > timedelta():
        return None
    if block.reason in (Reason.UNSCHEDULABLE, Reason.QUEUED):
        return End(block.reason, f"{block.message}; the other pods gave their nodes back")
    absent = block.reason is Reason.NAME_TAKEN  # and what would be its own was not seen
    return End(Reason.START_TIMEOUT, f"{block.reason}: {block.message}", absent=absent)


def _time_to_start(s: Scene, block: Blocked | None) -> timedelta | None:
    """Return the time left to remove what blocks a pod; None if it may take as long as it likes."""
    if block is None or block.since is None:
        return None
    return block.since + timedelta(seconds=s.settings.start_timeout_seconds) - s.now


def in_the_way(s: Scene, attempt: int) -> Verdict | None:
    """Return the verdict on an attempt of whose pods' names one belongs to someone else."""
    stray = next(iter(s.observed.strays_of(attempt)), None)
    if stray is None:
        return None
    text = f"pod {stray.name} exists and belongs to {stray.owner}"
    return Verdict(Course.PROGRESSING, Reason.NAME_TAKEN, with_advice(text, Reason.NAME_TAKEN))


def names_taken(s: Scene, attempt: int) -> Decision | None:
    """Return the decision to make nothing while a name is taken. It may be a pod of a workload that
    nobody has seen, so that what would be made ran beside it."""
    verdict = in_the_way(s, attempt)
    if verdict is None:
        return None
    waits = s.go_on(verdict.reason, verdict.message, attempt)
    return replace(waits, after=LOOK_EVERY, confirm=True)


def _go_on(s: Scene, attempt: Attempt, block: Blocked | None, still: Standstill) -> Decision:
    pods = _pods(s, attempt)
    workload = s.observed.workload(s.job.uid, attempt.number)
    if workload is None:
        waits = outlives(s, attempt.number) or names_taken(s, attempt.number)
        if waits is not None:
            left = _time_to_start(s, block)
            return replace(waits, after=min(left, LOOK_EVERY) if left else LOOK_EVERY)
    complete = len(pods) == s.job.spec.workers.replicas
    all_run = complete and all(p.running or p.over for p in pods)
    said = told(s.job, s.observed, attempt.number)
    seen = learned(attempt, said).model_copy(
        update={
            "pod_uids": attempt.pod_uids or ([p.uid for p in pods] if complete else None),
            "state": AttemptState.RUNNING if all_run else attempt.state,
            "running_time": attempt.running_time or (rfc3339(s.now) if all_run else None),
        }
    )
    before = [corrected(a, seen, said) for a in s.attempts[-2:-1]]
    return Decision(
        (*s.attempts[:-2], *before, seen),
        _verdict(s, seen, block),
        run=seen,
        delete=s.others(attempt.number),
        after=next_look(
            s, pods, block, all_run, still.after, None if complete else _unmade_left(s, attempt)
        ),
        # A workload that the cache does not show may have been made by an operator that then died;
        # a Lease that it shows unchanged may have been renewed.
        confirm=workload is None or still.listen is not None,
        listen=still.listen,
        look=_to_look_at(s, seen, workload, pods, block),
    )


def next_look(
    s: Scene, pods: list[Pod], block: Blocked | None, steady: bool, *others: timedelta | None
) -> timedelta | None:
    """Return when to look again: at what blocks pods, at the deadline, at `others`, and, while the
    pods are not `steady`, at the next that will have taken long enough to start."""
    slow = None if steady else _slow(s, pods)
    looks = [_time_to_start(s, block), s.deadline_left(), slow, *others]
    return min((look for look in looks if look is not None), default=None)


def _unmade_left(s: Scene, attempt: Attempt) -> timedelta | None:
    """Return how long the workload may yet take to make its pods before its Events are read."""
    started = timestamp(attempt.start_time)
    left = started + LOOK_AFTER - s.now if started else timedelta()
    return left if left > timedelta() else None


def _slow(s: Scene, pods: list[Pod]) -> timedelta:
    given = [p.scheduled for p in pods if p.scheduled and not p.running and not p.over]
    soon = [left for at in given if (left := at + LOOK_AFTER - s.now) > timedelta()]
    return min(soon, default=LOOK_EVERY)


def _verdict(s: Scene, attempt: Attempt, block: Blocked | None) -> Verdict:
    if (taken := in_the_way(s, attempt.number)) is not None:
        return taken
    if block is not None:
        return blocked_verdict(block)
    if attempt.state is AttemptState.RUNNING:
        text = f"attempt {attempt.number} is running"
        return Verdict(Course.PROGRESSING, Reason.RUNNING, text)
    return Verdict(Course.PROGRESSING, Reason.PENDING, f"attempt {attempt.number} is starting")


def blocked_verdict(block: Blocked) -> Verdict:
    """Return the verdict on a job whose pods wait, with what to do about it."""
    text = with_advice(block.message, block.reason)
    return Verdict(Course.PROGRESSING, block.reason, bounded(text))


def _to_look_at(
    s: Scene, attempt: Attempt, workload: Child | None, pods: list[Pod], block: Blocked | None
) -> tuple[str, ...]:
    """Return the workload while its pods do not all run, and the first pods that have a node but do
    not run, if none says itself why."""
    stuck = () if block else stuck_pods(s, pods)
    started = timestamp(attempt.start_time)
    if workload is None or attempt.running_time is not None or started is None:
        return stuck
    return (workload.uid, *stuck) if s.now - started >= LOOK_AFTER else stuck


def stuck_pods(s: Scene, pods: list[Pod]) -> tuple[str, ...]:
    """Return the uids of the first pods that have had a node for a while but do not run."""
    stuck = [
        p.uid
        for p in pods
        if p.scheduled and not p.running and not p.over and s.now - p.scheduled >= LOOK_AFTER
    ]
    return tuple(stuck[:_LOOKS])

"""What a decision looks at and what it says. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from finetune_api.job import FineTuneJob
from finetune_api.status import (
    ArtifactStatus,
    Attempt,
    FineTuneJobStatus,
    RetryStatus,
    RewardCheckStatus,
)
from finetune_contract.reasons import Reason
from finetune_operator.job.backend import Backend
from finetune_operator.job.times import timestamp
from finetune_operator.judge.pod_end import End
from finetune_operator.judge.retry import active_time
from finetune_operator.judge.wording import with_advice
from finetune_operator.observe.observed import Child, Observed
from finetune_operator.settings import Settings

# Nothing tells when some things end, such as another pod's pull of an image; then look this often.
LOOK_EVERY = timedelta(seconds=10)


class Course(Enum):
    """What the conditions say of the job."""

    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INVALID = "Invalid"  # its spec can not be read; it is not over
    KEPT = "Kept"  # finished before; the conditions stand


@dataclass(frozen=True)
class Verdict:
    """The job's course, and why."""

    course: Course
    reason: Reason
    message: str = ""


@dataclass(frozen=True)
class Decision:
    """What to record, then to do."""

    attempts: tuple[Attempt, ...]
    verdict: Verdict
    run: Attempt | None = None  # its objects must exist
    delete: tuple[Child, ...] = ()
    after: timedelta | None = None  # look again then, even if nothing happens
    within: timedelta | None = None  # the job's deadline is then, whatever else is waited for
    artifact: ArtifactStatus | None = None
    confirm: bool = False  # it rests on an absence: read from the server, and decide again
    look: tuple[str, ...] = ()  # uids of objects whose Events would tell what keeps pods from going
    listen: str | None = None  # the pod whose log would tell whether it lives
    retry: RetryStatus | None = None  # what to record of it; None: what stands
    reward_check: RewardCheckStatus | None = None  # what to record of it; None: what stands
    run_check: bool = False  # the pod that tries the rewards must exist, with what it needs


@dataclass(frozen=True)
class Scene:
    """All that the steps look at."""

    job: FineTuneJob
    status: FineTuneJobStatus
    attempts: tuple[Attempt, ...]
    observed: Observed
    now: datetime
    settings: Settings
    backend: Backend
    trial: str | None  # digest of the pod that would try the rewards; None without any to try
    confirm: bool = False

    @property
    def counted_after(self) -> int:
        """Return the last attempt that counts no more, since the user let the failed job go on."""
        return self.status.retry.after_attempt if self.status.retry else 0

    def with_last(self, attempt: Attempt) -> Scene:
        """Return the scene with the last attempt's record replaced."""
        return replace(self, attempts=(*self.attempts[:-1], attempt))

    def go_on(self, reason: Reason, text: str, keep: int | None = None) -> Decision:
        """Return the decision to wait; of the attempts' children only those of `keep` stay."""
        verdict = Verdict(Course.PROGRESSING, reason, text)
        return Decision(self.attempts, verdict, delete=self.others(keep), confirm=self.confirm)

    def fail(self, end: End, keep: int | None = None) -> Decision:
        """Return the decision that the job has failed."""
        verdict = Verdict(Course.FAILED, end.reason, with_advice(end.message, end.reason))
        return Decision(self.attempts, verdict, delete=self.others(keep), confirm=self.confirm)

    def others(self, keep: int | None, shared: bool = True) -> tuple[Child, ...]:
        """Return the children to delete when attempt `keep` (and what attempts share) stays.

        A child of a deleted job of the same name goes as well; a stranger's is left alone.
        """
        doomed = []
        for child in self.observed.children:
            kept = child.owner_uid == self.job.uid and (
                shared if child.attempt is None else child.attempt == keep
            )
            if not kept and not child.deleting and child.owner_uid is not None:
                doomed.append(child)
        return tuple(doomed)

    def deadline_left(self) -> timedelta | None:
        """Return how long check and attempts may yet run; None without a deadline."""
        seconds = self.job.spec.run_policy.active_deadline_seconds
        if seconds is None:
            return None
        counted = [a for a in self.attempts if a.number > self.counted_after]
        check = self.status.reward_check if not self.counted_after else None
        begun = timestamp(check.start_time) if check else None
        ended = timestamp(check.end_time) if check else None
        checking = (ended or self.now) - begun if begun else timedelta()
        return timedelta(seconds=seconds) - active_time(counted, self.now) - checking

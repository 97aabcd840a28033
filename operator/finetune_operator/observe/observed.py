"""What the cluster shows of one job: frozen values, all that a decision rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from finetune_contract.progress import Progress
from finetune_contract.result import Result


@dataclass(frozen=True)
class Child:
    """An object with a name that the job gives; pods that a workload makes are Pods alone."""

    kind: str
    name: str
    uid: str
    owner_uid: str | None  # of the FineTuneJob that controls it
    attempt: int | None
    deleting: bool
    workload: bool = False  # it is the one that makes pods
    outcome: bool | None = None  # of a workload: ended well, ended badly, not ended
    held: str | None = None  # of a workload: what keeps it from making pods, such as a queue
    created: datetime | None = None  # of a workload: when, by the API server's clock


@dataclass(frozen=True)
class ContainerEnd:
    """How a container ended."""

    exit_code: int
    reason: str
    finished: datetime | None
    result: Result | None
    words: str = ""  # of its kubelet, where it never ran


@dataclass(frozen=True)
class Crashes:
    """A container that its kubelet starts again and again, and how it ended the last time."""

    restarts: int
    exit_code: int
    reason: str
    words: str  # the end of its log


@dataclass(frozen=True)
class InitFailure:
    """The init container that failed, before the trainer could start."""

    name: str
    exit_code: int
    waited: bool = False  # it is the backend's, and waits for rank 0


@dataclass(frozen=True)
class Obstacle:
    """What keeps a container from starting, in the kubelet's or the scheduler's words; with `since`
    it is what any start has for a moment, and keeps nothing until it has lasted."""

    reason: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True)
class Sign:
    """The newest Event of an object, by whatever does something with it."""

    warning: bool
    reason: str
    message: str
    time: datetime | None


@dataclass(frozen=True)
class Pod:
    """A pod of the job. The one that tries the rewards counts as rank 0 of attempt 1."""

    name: str
    uid: str
    attempt: int
    node_rank: int
    phase: str
    reason: str
    message: str
    disrupted: str | None  # why the cluster took it away, in its words
    scheduled: datetime | None
    running: bool
    due: datetime | None  # it was deleted and should be gone by then
    gone: bool  # deleted; these are its last words
    obstacle: Obstacle | None
    init_failure: InitFailure | None
    end: ContainerEnd | None
    digest: str | None = None  # of the content it was written with, where that is ours
    runner_crashes: Crashes | None = None  # of the reward runner, while it is not running
    disruption: str = ""  # what took it away, as its condition DisruptionTarget calls it
    deleted: datetime | None = None  # it was asked to go then
    made: bool = True  # one of its containers was started, and those after it wait for its end

    @property
    def finished(self) -> bool:
        """Return whether none of its containers can run any more."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def over(self) -> bool:
        """Return whether its trainer can not run any more, whatever else was put into the pod."""
        return self.finished or self.end is not None


@dataclass(frozen=True)
class Stray:
    """A pod that has the name of one of the job's, and is none of it."""

    name: str
    attempt: int
    owner: str  # what controls it, in words


@dataclass(frozen=True)
class Report:
    """The progress in an attempt's Lease."""

    attempt: int
    time: datetime
    progress: Progress


@dataclass(frozen=True)
class Standing:
    """For how many seconds, by this operator's own clock, an attempt's Lease has told nothing new:
    `still` from one that said so to the last that came, `silent` since then."""

    still: float
    silent: float


@dataclass(frozen=True)
class Observed:
    """All that a decision rests on, the job itself aside."""

    children: tuple[Child, ...] = ()
    pods: tuple[Pod, ...] = ()
    reports: tuple[Report, ...] = ()
    warnings: Mapping[str, str] = field(default_factory=dict)  # newest event by uid, if a warning
    signs: Mapping[str, Sign | None] = field(default_factory=dict)  # if not; None: there is none
    looked: bool = False  # the Events that the decision asked for were read
    checks: tuple[Pod, ...] = ()  # pods that try the rewards; deleted ones included
    strays: tuple[Stray, ...] = ()
    kin: tuple[Pod, ...] = ()  # may be attempts' own: believed is only that they run
    renewals: Mapping[int, str] = field(default_factory=dict)  # of a Lease, as it says
    standing: Standing | None = None  # of the attempt that runs, once it was watched for a while
    quiet: bool | None = None  # the log that the decision asked for; None: not read

    def workload(self, job_uid: str, attempt: int) -> Child | None:
        """Return the object that makes the attempt's pods."""
        mine = (c for c in self.children if c.workload and c.owner_uid == job_uid)
        return next((c for c in mine if c.attempt == attempt), None)

    def strays_of(self, attempt: int) -> list[Stray]:
        """Return the pods that are in the way of an attempt's own."""
        return [stray for stray in self.strays if stray.attempt == attempt]

    def may_run(self) -> list[Pod]:
        """Return the pods whose trainer may run yet, those included that nobody can tell from an
        attempt's own: its workload went before it was recorded, or its record was changed."""
        return [pod for pod in (*self.pods, *self.kin) if not pod.over]

    def pods_of(self, attempt: int) -> list[Pod]:
        """Return an attempt's pods by node rank, deleted ones included."""
        return sorted((p for p in self.pods if p.attempt == attempt), key=lambda p: p.node_rank)

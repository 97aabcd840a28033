"""The ends of a pod's ranks -> the pod's one Result. The first failing rank is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, Result
from finetune_trainer.process.ending import ResultFile, failed
from finetune_trainer.process.errors import Failure

# How a rank ends when something else ended first.
CONSEQUENCES = (Reason.DISTRIBUTED_FAILURE, Reason.INTERRUPTED)
ABORTED = "Fatal Python error: Aborted"  # faulthandler's words for SIGABRT
BUS_ERROR = "Fatal Python error: Bus error"  # and for SIGBUS: a page of shared memory is not there


@dataclass(frozen=True)
class RankEnd:
    """A rank's Result and when it was written; without one it was killed, or crashed.

    `crash` is what Python's faulthandler wrote of the crash; None if the rank never began.
    """

    rank: int
    result: Result | None
    at: int = 0  # ns since the epoch
    crash: str | None = ""

    @classmethod
    def read(cls, file: ResultFile, rank: int) -> RankEnd:
        """Read what a rank left."""
        result = file.read()
        crash = file.crash.read_text(errors="replace") if file.crash.exists() else None
        return cls(rank, result, file.written_at() if result else 0, crash)


def pod_result(
    ends: Sequence[RankEnd], *, attempt: int, world: int, stopped: bool, memory_killed: bool
) -> Result:
    """Return the first cause: a failure of its own, a silent death, a stop, a lost peer.

    `ends` are those of this pod, of `world` ranks altogether.
    """
    results = [end.result for end in ends if end.result is not None]
    if len(results) == len(ends) and all(r.outcome is Outcome.SUCCEEDED for r in results):
        return results[0]
    told = sorted(
        (e for e in ends if e.result and e.result.outcome is Outcome.FAILED), key=lambda e: e.at
    )
    causes = [end for end in told if end.result and end.result.reason not in CONSEQUENCES]
    if causes and causes[0].result:
        return causes[0].result
    silent = [end for end in ends if end.result is None]
    if silent and not stopped:
        first = min(silent, key=_lost_another)
        met = any(end.crash is not None for end in ends)
        cause = _silent(first, met=met, alone=world == 1, memory_killed=memory_killed)
        return failed(cause, attempt=attempt, rank=first.rank)
    if stopped:
        stop = Failure(Reason.INTERRUPTED, "the pod was told to stop")
        stops = [e.result for e in told if e.result and e.result.reason is Reason.INTERRUPTED]
        return max(stops, key=_knowledge, default=failed(stop, attempt=attempt, rank=ends[0].rank))
    lost = [e.result for e in told if e.result and e.result.reason is CONSEQUENCES[0]]
    return lost[0] if lost else results[0]


def _knowledge(result: Result) -> tuple[bool, bool]:
    """Order by what a rank could tell: rank 0 knows the checkpoint, one that trained the step."""
    return result.checkpoint is not None, result.step is not None


def _lost_another(end: RankEnd) -> bool:
    """Tell whether a silent rank ended as NCCL ends one that waits for another in vain."""
    return end.crash is not None and ABORTED in end.crash


def _silent(end: RankEnd, *, met: bool, alone: bool, memory_killed: bool) -> Failure:
    """Return what the end of a rank without a Result means."""
    if memory_killed:
        return Failure(Reason.OUT_OF_MEMORY, "the kernel killed the process for memory")
    if not met and not alone:
        return Failure(
            Reason.DISTRIBUTED_FAILURE, "no process began: the nodes did not find each other"
        )
    if _lost_another(end) and not alone:
        return Failure(
            Reason.DISTRIBUTED_FAILURE,
            "the process aborted, as NCCL does where another rank is lost or does not answer; the "
            "pod's log has its text",
        )
    if end.crash and BUS_ERROR in end.crash:
        return Failure(
            Reason.NODE_LIMIT,
            "the process ended with a bus error, as it does where /dev/shm is full: raise "
            "workers.resources.limits.memory, of which it is a part",
        )
    if end.crash:
        return Failure(
            Reason.TRAINER_ERROR, "the process crashed in native code; the pod's log has its text"
        )
    return Failure(
        Reason.TRAINER_ERROR, "the process ended without a word: killed, often for memory"
    )

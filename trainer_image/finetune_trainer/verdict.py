"""The ends of a pod's ranks -> the pod's one Result. The first failing rank is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, Result
from finetune_trainer.ending import ResultFile, failed
from finetune_trainer.errors import Failure

# How a rank ends when something else ended first.
CONSEQUENCES = (Reason.DISTRIBUTED_FAILURE, Reason.INTERRUPTED)


@dataclass(frozen=True)
class RankEnd:
    """A rank's Result and when it was written; without one it was killed, or crashed."""

    rank: int
    result: Result | None
    at: int = 0  # ns since the epoch

    @classmethod
    def read(cls, file: ResultFile, rank: int) -> RankEnd:
        """Read what a rank left."""
        result = file.read()
        return cls(rank, result, file.written_at() if result else 0)


def pod_result(
    ends: Sequence[RankEnd], *, attempt: int, stopped: bool, memory_killed: bool
) -> Result:
    """Return the first cause: a failure of its own, a silent death, a stop, a lost peer."""
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
        return failed(_silent(memory_killed), attempt=attempt, rank=silent[0].rank)
    if stopped:
        stop = Failure(Reason.INTERRUPTED, "the pod was told to stop")
        stops = [e.result for e in told if e.result and e.result.reason is Reason.INTERRUPTED]
        return max(stops, key=_knowledge, default=failed(stop, attempt=attempt, rank=ends[0].rank))
    lost = [e.result for e in told if e.result and e.result.reason is CONSEQUENCES[0]]
    return lost[0] if lost else results[0]


def _knowledge(result: Result) -> tuple[bool, bool]:
    """Order by what a rank could tell: rank 0 knows the checkpoint, one that trained the step."""
    return result.checkpoint is not None, result.step is not None


def _silent(memory_killed: bool) -> Failure:
    if memory_killed:
        return Failure(Reason.OUT_OF_MEMORY, "the kernel killed the process for memory")
    return Failure(
        Reason.TRAINER_ERROR,
        "the process ended without a word: killed, often for memory, or crashed in native code",
    )

"""A run that stands still and that nothing ends: its launcher, which would, is frozen. Pure.

What is not heard of may be well: its Lease can be refused, or the API server out of its reach. Of
two things the second is not believed alone. Reports that come, and say that no process got on, are.
Where none come, the log is asked, which reaches the operator by another way: rank 0 that can not
report says so there, over and over, and what is frozen says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from finetune_api.status import Attempt, AttemptState
from finetune_contract.progress import COMPLAIN_SECONDS, START_SECONDS
from finetune_contract.reasons import Reason
from finetune_operator.judge.decision import Scene
from finetune_operator.judge.pod_end import End
from finetune_operator.observe.observed import Pod, Standing

# In which a launcher that works has told the stacks, and its pod has ended.
MARGIN_SECONDS = 300.0
QUIET_SECONDS = round(2 * COMPLAIN_SECONDS)  # without a line in the log
_AT_MOST = timedelta(days=1)


@dataclass(frozen=True)
class Standstill:
    """What follows: an end, a look into a pod's log, or another look after a while."""

    end: End | None = None
    listen: str | None = None
    after: timedelta | None = None


def standstill(s: Scene, attempt: Attempt) -> Standstill:
    """Return what follows from how long a running attempt has told nothing new."""
    standing, lead = s.observed.standing, _lead(s, attempt)
    if standing is None or lead is None or attempt.state is not AttemptState.RUNNING:
        return Standstill()
    if not s.settings.heartbeat_seconds:  # told to report nothing, it does not complain either
        return Standstill()
    bound = _bound(s, attempt)
    if standing.still >= bound:
        return Standstill(end=_end(lead, standing.still, "reports that no process gets on"))
    left = bound - _unheard(standing)
    if left > 0:
        return Standstill(after=min(_AT_MOST, timedelta(seconds=min(left, 1e6))))
    if s.observed.quiet is None:
        return Standstill(listen=lead.name)
    if not s.observed.quiet:
        return Standstill(after=timedelta(seconds=COMPLAIN_SECONDS))
    silence = f"neither its Lease nor, for {QUIET_SECONDS} s, its log says anything"
    return Standstill(end=_end(lead, _unheard(standing), silence))


def _unheard(standing: Standing) -> float:
    return standing.still + standing.silent


def _bound(s: Scene, attempt: Attempt) -> float:
    """Return after how many seconds the launcher has had its chance."""
    reports = (r.progress for r in s.observed.reports if r.attempt == attempt.number)
    told = next((progress.stall_timeout_seconds for progress in reports), None)
    return (told or START_SECONDS) + MARGIN_SECONDS + 2 * s.settings.heartbeat_seconds


def _lead(s: Scene, attempt: Attempt) -> Pod | None:
    """Return the pod that reports, if it runs."""
    pods = s.observed.pods_of(attempt.number)
    return next((p for p in pods if p.node_rank == 0 and p.running and not p.gone), None)


def _end(lead: Pod, seconds: float, what: str) -> End:
    text = f"{lead.name} has not got on for {seconds:.0f} s and does not end: {what}"
    return End(Reason.STALLED, text, absent=True)

"""A run that nothing ends though it stands still, and one that merely is not heard of."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import AttemptState, FineTuneJobStatus
from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Decision
from finetune_operator.observe.observed import Observed, Report, Standing
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.decisions import LEASE, PODS, RUNNING, SETTINGS, WORKLOAD, last_state
from support.operator.values import at, attempt, job

BOUND = 600 + 300 + 30  # as told, the launcher's chance, two heartbeats


def looked(
    still: float,
    silent: float,
    told: int | None = 600,
    settings: Settings = SETTINGS,
    **seen: Any,
) -> Decision:
    """The decision on a run that has told nothing new for so long."""
    progress = Progress(phase=Phase.TRAIN, step=7, stall_timeout_seconds=told)
    known: dict[str, Any] = {
        "children": (LEASE, WORKLOAD),
        "pods": PODS,
        "reports": (Report(1, at(0), progress),),
        "standing": Standing(still, silent),
    }
    status = FineTuneJobStatus(attempts=[seen.pop("of", attempt(**RUNNING))])
    observed = Observed(**{**known, **seen})
    return decide(job(status), observed, at(9000), settings, BACKEND, None)


def test_reports_that_nothing_gets_on_end_the_attempt() -> None:
    assert last_state(looked(BOUND - 1, 0)) is AttemptState.RUNNING
    decision = looked(BOUND, 0)
    assert decision.attempts[-1].reason == Reason.STALLED
    assert decision.attempts[-1].message == (
        "bot-a1-master-0 has not got on for 930 s and does not end: reports that no process gets on"
    )
    assert decision.confirm, "a cache that lags shows the same"


def test_silence_is_no_end_but_makes_the_log_be_asked() -> None:
    soon = looked(BOUND - 40, 30)
    assert (soon.listen, soon.confirm, soon.after) == (None, False, timedelta(seconds=10))
    due = looked(BOUND - 40, 40)
    assert (due.listen, due.confirm) == ("bot-a1-master-0", True)
    assert last_state(due) is AttemptState.RUNNING


def test_what_still_writes_its_log_lives_however_long_its_lease_is_silent() -> None:
    decision = looked(0, 10**6, quiet=False)
    assert (last_state(decision), decision.listen) == (AttemptState.RUNNING, None)
    assert decision.after == timedelta(seconds=300), "it is asked again"


def test_what_does_not_write_its_log_either_is_dead() -> None:
    decision = looked(30, BOUND - 30, quiet=True)
    assert decision.attempts[-1].reason == Reason.STALLED
    assert "neither its Lease nor, for 600 s, its log says anything" in str(
        decision.attempts[-1].message
    )
    assert decision.confirm


@pytest.mark.parametrize("reports", [(), None])
def test_a_run_that_told_no_bound_has_what_its_start_may_take(reports: Any) -> None:
    seen = {} if reports is None else {"reports": reports}
    assert looked(0, 4200 + 300 + 29, told=None, **seen).listen is None
    assert looked(0, 4200 + 300 + 30, told=None, **seen).listen == "bot-a1-master-0"


def test_what_an_attempt_before_told_is_nothing_to_this_one() -> None:
    before = Report(7, at(0), Progress(phase=Phase.TRAIN, stall_timeout_seconds=60))
    assert looked(0, BOUND, reports=(before,)).listen is None


@pytest.mark.parametrize(
    "seen",
    [
        {"standing": None},
        {"of": attempt(**{**RUNNING, "state": AttemptState.STARTING})},
        {"pods": (replace(PODS[0], running=False), PODS[1])},
        {"pods": PODS[1:], "of": attempt(running_time=RUNNING["running_time"])},
    ],
    ids=["not watched yet", "not all run", "the first does not run", "the first is not there"],
)
def test_only_what_runs_can_stand_still(seen: Any) -> None:
    decision = looked(10**6, 10**6, quiet=True, **seen)
    assert decision.attempts[-1].reason is None
    assert decision.listen is None


def test_a_run_that_is_told_to_report_nothing_is_not_ended_for_its_silence() -> None:
    mute = replace(SETTINGS, heartbeat_seconds=0)
    decision = looked(0, 10**6, told=None, settings=mute, quiet=True)
    assert (last_state(decision), decision.listen) == (AttemptState.RUNNING, None)


def test_a_bound_beyond_all_sense_is_looked_at_daily() -> None:
    assert looked(0, 0, told=2**53 - 1).after == timedelta(days=1)

"""What a run reports is shown once or in place, and nothing that is unknown."""

from typing import Any

import pytest

from finetune_api.status import FineTuneJobStatus
from finetune_cli.demo import _progress
from finetune_cli.progress_bar import ProgressBar, describe, news
from finetune_contract.progress import Phase, Progress, RewardProgress
from finetune_operator.judge.status import _progress_status, told_plan
from finetune_operator.observe.observed import Report
from support.operator.values import at, attempt, checkpoint_ref, job, resolved


def progress(**of: Any) -> Progress:
    return Progress(phase=Phase.TRAIN, **of)


def test_a_line_holds_all_that_is_known() -> None:
    full = progress(
        done=23,
        total=60,
        step=23,
        loss=1.23456,
        eval_loss=2,
        tokens_per_second=1234.4,
        eta_seconds=61,
        checkpoint=checkpoint_ref(20),
    )
    expected = "23/60  loss 1.2346  eval 2.0000  1,234 tokens/s  1:01 left  saved at 20"
    assert describe(full) == expected
    assert describe(progress()) == ""


def test_rewards_stand_in_the_place_of_a_loss_that_says_nothing() -> None:
    correct = RewardProgress(name="correct", mean=0.406)
    brief = RewardProgress(name="brief", mean=1)
    unscored = RewardProgress(name="judge")
    reached = progress(done=3, total=60, loss=0.001, reward=0.5)
    assert describe(reached) == "3/60  reward 0.5000"
    several = reached.model_copy(update={"rewards": (correct, unscored, brief)})
    assert describe(several) == "3/60  reward 0.5000 (correct 0.41, brief 1.00)"
    one = reached.model_copy(update={"rewards": (correct, unscored)})
    assert describe(one) == "3/60  reward 0.5000"


def test_the_plan_is_told_in_a_line_with_its_memory_marked_as_an_estimate() -> None:
    plan = resolved(4)
    memory = plan.memory.model_copy(update={"weights": 3 * 2**30, "available": 8 * 2**30})
    (line,) = news(progress(plan=plan.model_copy(update={"memory": memory})))
    assert line == (
        "plan: 4 rows per pass x 4 passes per process, ZeRO stage 2, packed, gradient "
        "checkpointing; about 3.0 of 8.0 GiB per process (estimated)"
    )
    bare = plan.model_copy(
        update={
            "packing": False,
            "gradient_checkpointing": False,
            "memory": memory.model_copy(update={"available": None}),
        }
    )
    assert news(progress(plan=bare)) == [
        "plan: 4 rows per pass x 4 passes per process, ZeRO stage 2; "
        "about 3.0 GiB per process (estimated)"
    ]


def test_where_a_run_goes_on_from_is_told() -> None:
    assert news(progress(resumed_step=20)) == ["goes on from the checkpoint of step 20"]
    assert news(progress()) == []


def test_what_a_run_waits_for_is_told() -> None:
    assert news(progress(note="judge answers 503")) == ["judge answers 503"]


def test_news_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        bar.show(progress(done=1, total=100, resumed_step=7))
        bar.show(progress(done=2, total=100, resumed_step=7))
        bar.show(progress(done=12, total=100, resumed_step=7))
    printed = capsys.readouterr().err.strip().splitlines()
    assert printed == [
        "goes on from the checkpoint of step 7",
        "Train     1/100",
        "Train     12/100",
    ]


def test_of_the_phases_of_every_step_only_the_first_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ProgressBar() as bar:
        bar.show(Progress(phase=Phase.ROLLOUT, done=8, total=16, step=0))
        bar.show(Progress(phase=Phase.SCORE, done=0, total=16, step=0))
        bar.show(progress(done=1, total=20, step=1))
        bar.show(Progress(phase=Phase.ROLLOUT, done=8, total=16, step=1))
        bar.show(Progress(phase=Phase.SCORE, done=0, total=16, step=1))
        bar.show(progress(done=2, total=20, step=2))
    printed = capsys.readouterr().err.strip().splitlines()
    assert printed == ["Rollout   8/16", "Score     0/16", "Train     1/20", "Train     2/20"]


def test_the_demo_shows_what_status_says() -> None:
    told = progress(
        done=23,
        total=60,
        step=23,
        resumed_step=20,
        checkpoint=checkpoint_ref(20),
        plan=resolved(4),
        loss=1.25,
        eval_loss=2,
        tokens_per_second=99,
        eta_seconds=3,
    )
    status = FineTuneJobStatus(
        attempts=[attempt(resumed_step=20)],
        checkpoint=checkpoint_ref(20),
        plan=told_plan(job(), resolved(4)),
    )
    assert _progress(status, _progress_status(Report(1, at(0), told))) == told

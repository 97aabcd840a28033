"""After an end by memory less of it is taken, for the same adapter, and never more again."""

from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.status import AttemptState
from finetune_contract.layout import Checkpointing, Offload
from finetune_contract.reasons import Reason
from finetune_operator.job.footprint import Footprint, least, smaller
from finetune_operator.judge.retry import next_footprint
from support.operator.values import attempt, job

AUTO, ALWAYS, NEVER = Checkpointing.AUTO, Checkpointing.ALWAYS, Checkpointing.NEVER
BOTH = (Offload.OPTIMIZER, Offload.PARAMETERS)


def failed(number: int, reason: Reason = Reason.OUT_OF_MEMORY, **fields: Any) -> Any:
    return attempt(number, state=AttemptState.FAILED, reason=reason, **fields)


def on_gpus(**memory: Any) -> FineTuneJob:
    return job(workers={"resources": {"limits": {"nvidia.com/gpu": 1}}}, memory=memory)


def rungs(of: FineTuneJob, size: int) -> list[Footprint]:
    """Return what follows, end by end, an attempt that ran with a micro-batch."""
    now: Footprint | None = Footprint.of(of, attempt(micro_batch_size=size))
    taken = []
    while now is not None:
        taken.append(now)
        now = smaller(of, now)
    return taken[1:]


@pytest.mark.parametrize(
    ("batch", "micro", "following"),
    [(32, 4, 2), (15, 5, 1), (10, 5, 2), (24, 12, 6), (12, 6, 3), (36, 9, 4)],
)
def test_the_next_micro_batch_is_at_most_half_and_divides(
    batch: int, micro: int, following: int
) -> None:
    of = job(training={"globalBatchSize": batch}, workers={"replicas": 1})
    assert next_footprint(of, [failed(1, micro_batch_size=micro)]).micro_batch_size == following


def test_after_the_micro_batch_come_checkpointing_and_then_offload() -> None:
    assert rungs(on_gpus(), 4) == [
        Footprint(2, AUTO, ()),
        Footprint(1, AUTO, ()),
        Footprint(1, ALWAYS, ()),
        Footprint(1, ALWAYS, BOTH),
    ]


@pytest.mark.parametrize(
    ("memory", "last"),
    [
        ({"gradientCheckpointing": "Never"}, Footprint(1, NEVER, BOTH)),
        ({"zeroStage": 0}, Footprint(1, ALWAYS, ())),
        ({"zeroStage": 2}, Footprint(1, ALWAYS, (Offload.OPTIMIZER,))),
        ({"zeroStage": 3}, Footprint(1, ALWAYS, BOTH)),
        ({"offload": ["Parameters"]}, Footprint(1, ALWAYS, (Offload.PARAMETERS,))),
    ],
)
def test_what_the_job_fixes_stays(memory: dict[str, Any], last: Footprint) -> None:
    assert rungs(on_gpus(**memory), 2)[-1] == last


def test_a_cpu_is_the_host_itself() -> None:
    assert rungs(job(), 2)[-1] == Footprint(1, ALWAYS, ())


def test_what_the_trainer_turned_on_is_not_tried_again() -> None:
    ran = failed(1, micro_batch_size=1, gradient_checkpointing=True)
    assert next_footprint(on_gpus(), [ran]) == Footprint(1, ALWAYS, BOTH)


def test_why_nothing_takes_less_is_said_in_the_jobs_words() -> None:
    assert least(on_gpus(zeroStage=0), Footprint(1, NEVER, ())) == (
        "microBatchSize is 1 already, gradientCheckpointing is Never, zeroStage 0 allows no offload"
    )
    assert least(on_gpus(), Footprint(1, ALWAYS, BOTH)) == (
        "microBatchSize is 1 already, gradientCheckpointing is Always, "
        "offload is [Optimizer, Parameters]"
    )


def test_without_an_end_by_memory_all_is_the_jobs() -> None:
    two = job(training={"microBatchSize": 2}, memory={"gradientCheckpointing": "Never"})
    assert next_footprint(two, []) == Footprint(2, NEVER, ())
    lost = failed(1, Reason.POD_LOST, micro_batch_size=8, gradient_checkpointing=True)
    assert next_footprint(job(), [lost]) == Footprint(None, AUTO, ())


def test_after_an_end_by_memory_it_is_never_more_again() -> None:
    ran = {"micro_batch_size": 1, "gradient_checkpointing": True, "offload": list(BOTH)}
    attempts = [failed(1, micro_batch_size=1), failed(2, Reason.POD_LOST, **ran)]
    assert next_footprint(on_gpus(), attempts) == Footprint(1, ALWAYS, BOTH)


def test_out_of_memory_before_auto_was_told_leaves_the_least_micro_batch() -> None:
    assert next_footprint(job(), [failed(1, micro_batch_size=None)]) == Footprint(1, AUTO, ())

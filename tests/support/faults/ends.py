"""How a trainer ends: the Result that the trainer's own code makes of what befell it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from obstore.exceptions import GenericError, PermissionDeniedError

from finetune_contract.reasons import Reason
from finetune_contract.result import Result
from finetune_trainer.data.faults import Findings, RowError
from finetune_trainer.data.lines import parse_line
from finetune_trainer.process.ending import explain
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.verdict import RankEnd, pod_result
from finetune_trainer.store.credentials import BucketAccess
from finetune_trainer.store.storage_errors import Place, translated
from support.faults.day import Day
from support.faults.table import Strike

PEER_LOST = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.7]")


def ends(error: BaseException, rank: int = 0) -> Strike:
    """End a rank's pod by an exception, as soon as it runs, and a second later its peer."""

    def strike(day: Day) -> None:
        def fail() -> None:
            failed, lost = day.pod(rank), day.pod(1 - rank)
            day.struck = day.now()
            day.world.fail(failed, explain(error))
            day.later(1, lambda: day.world.fail(lost, explain(PEER_LOST)))

        day.once(day.trains, fail)

    return strike


def dies(crash: str = "", rank: int = 1, memory_killed: bool = False) -> Strike:
    """Kill a rank in its pod; what faulthandler wrote is all that its launcher has to go by."""
    ranks = [RankEnd(rank, None, crash=crash)]
    result = pod_result(ranks, attempt=1, world=2, stopped=False, memory_killed=memory_killed)
    return ends(_failure(result), rank)


def killed_by_the_kernel(day: Day) -> None:
    """Kill a pod's container at its memory limit, which leaves no word."""
    day.world.end_with(day.pod(1), {"exitCode": 137, "reason": "OOMKilled"})
    day.later(1, lambda: day.world.fail(day.pod(0), explain(PEER_LOST)))


def _failure(result: Result) -> Failure:
    return Failure(result.reason, result.message, rank=result.rank)


def raised(call: Callable[[], object]) -> Failure:
    """Return the failure with which the trainer's own code ends."""
    try:
        call()
    except Failure as failure:
        return failure
    raise AssertionError("it did not fail")


def answered(status: int, code: str, kind: type[Exception] = GenericError) -> Failure:
    """Return what the trainer makes of a store's refusal, as obstore words it."""
    body = f"<Error><Code>{code}</Code><AWSAccessKeyId>AKIA0000</AWSAccessKeyId></Error>"
    return asked(kind(f"Generic S3 error: Server returned non-2xx status code: {status}: {body}"))


def asked(error: BaseException) -> Failure:
    """Return what the trainer makes of an error of obstore's."""

    def ask() -> None:
        with translated(Place("s3://adapters/bot", "spec.output", Reason.OUTPUT_NOT_FOUND)):
            raise error

    return raised(ask)


def refused(code: str) -> Failure:
    """Return what the trainer makes of a 403."""
    return answered(403, code, PermissionDeniedError)


def secret(**values: str) -> Failure:
    """Return what the trainer makes of a Secret."""

    def read() -> None:
        with tempfile.TemporaryDirectory() as directory:
            for key, value in values.items():
                Path(directory, key).write_text(value)
            BucketAccess.read(directory, "spec.output.credentialsSecretRef")

    return raised(read)


def bad_row() -> Failure:
    """Return what the trainer makes of a row that is no JSON."""
    findings = Findings()
    try:
        parse_line(b'{"messages": [{"role": "user"')
    except RowError as error:
        findings.add("s3://d/a.jsonl", 7, error.kind, str(error))
    return raised(findings.raise_if_any)

"""Whole runs against a store that fails: they go on, or end with the reason and go on later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.artifact import Latest
from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome
from finetune_contract.runconfig import RunConfig
from finetune_trainer.store.artifacts import open_artifact
from finetune_trainer.store.storage import Role, Store
from support.models.tiny_llama import sums, write_model, write_rows
from support.storage.fault_proxy import DENIED, UNAVAILABLE, FaultProxy
from support.trainer.fork_server import Ended, ForkServer
from support.trainer.runs import run_config

STEPS = 6


@pytest.fixture(scope="module")
def ranks() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_model(directory / "model")
    write_rows(directory / "train.jsonl", sums(64))
    return directory


class Job:
    """One job whose output is behind the proxy; attempts differ by number alone."""

    def __init__(self, directory: Path, inputs: Path, secret: str, ranks: ForkServer) -> None:
        self.directory, self.inputs, self.secret, self.ranks = directory, inputs, secret, ranks
        self.output = f"s3://runs/{directory.name}"

    def config(self, attempt: int) -> RunConfig:
        return run_config(
            self.directory / f"scratch-{attempt}",
            model=self.inputs / "model",
            data=self.inputs / "train.jsonl",
            output=self.output,
            training={"maxSteps": STEPS},
            attempt=attempt,
            checkpoint={"everySteps": 1, "keep": STEPS},
            credentials={"output": self.secret},
        )

    def run(self, attempt: int) -> Ended:
        [ended] = self.ranks.run(self.config(attempt), self.directory / f"attempt-{attempt}")
        assert ended.result is not None, ended.log
        return ended

    def artifact(self) -> str | None:
        """Return the digest of the artifact that readers get, everything verified."""
        found = Store(self.output, Role.OUTPUT, self.secret).read("latest.json")
        latest = Latest.model_validate_json(found)
        if latest.artifact is None:
            return None
        open_artifact(self.output, self.secret, self.directory / "opened")
        return latest.artifact.digest


@pytest.fixture
def job(tmp_path: Path, inputs: Path, secret: str, ranks: ForkServer) -> Job:
    return Job(tmp_path, inputs, secret, ranks)


@pytest.mark.slow
def test_training_goes_on_between_checkpoints_that_fail(job: Job, proxy: FaultProxy) -> None:
    proxy.fail("PUT .*checkpoints/0000000[1-5]/", DENIED)
    ended = job.run(1)
    assert ended.result is not None
    assert ended.result.outcome is Outcome.SUCCEEDED, ended.log
    assert "checkpoint of step 1 failed, training goes on" in ended.log
    assert ended.result.artifact is not None
    assert job.artifact() == ended.result.artifact.digest


@pytest.mark.slow
def test_a_short_outage_while_publishing_is_waited_for(job: Job, proxy: FaultProxy) -> None:
    rule = proxy.fail("(PUT|GET) .*artifact/", UNAVAILABLE, times=20)
    ended = job.run(1)
    assert rule.struck == 20
    assert ended.result is not None
    assert ended.result.outcome is Outcome.SUCCEEDED, ended.log
    assert ended.result.artifact is not None
    assert job.artifact() == ended.result.artifact.digest


@pytest.mark.slow
@pytest.mark.parametrize("of", ["PUT .*artifact/manifest.json", "GET .*artifact/adapter"])
def test_a_publish_that_is_refused_is_no_success_and_the_next_attempt_publishes(
    job: Job, proxy: FaultProxy, of: str
) -> None:
    proxy.fail(of, DENIED)
    first = job.run(1).result
    assert first is not None
    assert (first.outcome, first.reason) == (Outcome.FAILED, Reason.ACCESS_DENIED)
    assert job.artifact() is None
    proxy.heal()
    ended = job.run(2)
    assert ended.result is not None
    assert ended.result.outcome is Outcome.SUCCEEDED, ended.log
    assert f"starts at step {STEPS} of {STEPS}" in ended.log
    assert ended.result.artifact is not None
    assert job.artifact() == ended.result.artifact.digest

"""Checkpoints on a store that fails: those that are there are whole, and training goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Timer

import pytest
import torch

from finetune_contract.checkpoint import CheckpointRef, TrainingState
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_local.s3 import S3Server
from finetune_trainer.checkpoints.keeper import Checkpoints
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.step.optimizer_state import Moments
from finetune_trainer.store.publish import Output
from support.storage.fault_proxy import EXPIRED, Corrupt, Fault, FaultProxy, Slow
from support.storage.faults import LARGE, LASTING, PASSING, crossed, renew_keys
from support.storage.publications import PROVENANCE
from support.storage.s3_server import NEXT_KEY

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def told() -> list[CheckpointRef]:
    return []


@pytest.fixture
def checkpoints(config: RunConfig, told: list[CheckpointRef]) -> Checkpoints:
    return opened(config, told.append)


def opened(config: RunConfig, tell: Callable[[CheckpointRef], object]) -> Checkpoints:
    output = Output.claim(config.layout)
    return Checkpoints(output, PROVENANCE, config.layout, tell)


def snapshot(step: int) -> Snapshot:
    weights = {"lora": torch.full((LARGE // 4,), float(step))}
    state = TrainingState(step=step, supervised_tokens=step, loss=1.0)
    return Snapshot(state, weights, Moments(), history=b"{}\n")


def write(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(snapshot(step))
    checkpoints.wait()


def newest(config: RunConfig) -> int:
    """Return the step that the next attempt goes on from, its tensors checked."""
    layout = config.layout.model_copy(update={"attempt": config.layout.attempt + 1})
    following = opened(config.model_copy(update={"layout": layout}), lambda ref: None)
    found = following.newest(lambda _: True)
    if found is None:
        return 0
    assert torch.equal(found.weights["lora"], snapshot(found.state.step).weights["lora"])
    return found.state.step


@pytest.mark.parametrize(
    ("fault", "times", "of"), crossed(PASSING, ["state.safetensors", "manifest.json"])
)
def test_outlives_a_fault_that_ends(
    proxy: FaultProxy,
    config: RunConfig,
    checkpoints: Checkpoints,
    told: list[CheckpointRef],
    fault: Fault,
    times: int | None,
    of: str,
) -> None:
    rule = proxy.fail(f"(PUT|POST) .*{of}", fault, times)
    write(checkpoints, 1)
    assert rule.struck
    assert [ref.step for ref in told] == [1]
    assert newest(config) == 1


@pytest.mark.parametrize(
    ("fault", "reason", "words", "of"),
    crossed(LASTING, ["POST .*uploads", "PUT .*partNumber=2", "POST .*uploadId", "PUT .*manifest"]),
)
def test_a_lasting_fault_costs_that_checkpoint_only(
    proxy: FaultProxy,
    config: RunConfig,
    checkpoints: Checkpoints,
    told: list[CheckpointRef],
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    reason: Reason,
    words: str,
    of: str,
) -> None:
    write(checkpoints, 1)
    rule = proxy.fail(of, fault)
    write(checkpoints, 2)
    assert rule.struck
    assert "checkpoint of step 2 failed, training goes on" in caplog.text
    assert words in caplog.text
    proxy.heal()
    assert [ref.step for ref in told] == [1]
    found = checkpoints.newest(lambda _: True)
    assert found is not None
    assert found.state.step == 1
    write(checkpoints, 3)
    assert [ref.step for ref in told][-1] == 3
    assert newest(config) == 3


def test_a_body_that_arrives_altered_is_sent_again(
    proxy: FaultProxy, config: RunConfig, checkpoints: Checkpoints
) -> None:
    rules = [proxy.fail(of, Corrupt(), 1) for of in ("PUT .*partNumber=2", "PUT .*manifest")]
    write(checkpoints, 1)
    assert all(rule.struck for rule in rules)
    assert newest(config) == 1


def test_one_that_comes_back_altered_is_passed_over(
    proxy: FaultProxy, config: RunConfig, checkpoints: Checkpoints
) -> None:
    write(checkpoints, 1)
    write(checkpoints, 2)
    proxy.fail("GET .*00000002/state", Corrupt())
    assert newest(config) == 1


def test_an_upload_goes_on_with_renewed_keys(
    proxy: FaultProxy,
    server: S3Server,
    config: RunConfig,
    checkpoints: Checkpoints,
    told: list[CheckpointRef],
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_trainer.store.storage.ROTATION_SECONDS", 60.0)
    old = server.access.access_key
    rule = proxy.fail(f"PUT .*partNumber=2.* by {old}$", EXPIRED)
    proxy.fail(f"by {old}$", Slow(0.01))
    renew = Timer(0.5, renew_keys, (Path(secret), server, proxy))
    renew.start()
    write(checkpoints, 1)
    renew.join()
    assert rule.struck
    assert [ref.step for ref in told] == [1]
    assert any(request.endswith(f"by {NEXT_KEY}") for request in proxy.requests)
    assert newest(config) == 1

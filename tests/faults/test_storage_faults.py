"""A store that fails: what is there is whole, what is not whole is not there, and work goes on.

A real S3 server behind a proxy that fails on command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import torch

from finetune_contract.artifact import Latest, Manifest
from finetune_contract.checkpoint import CheckpointRef, TrainingState
from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource, ModelRecipe
from finetune_contract.runconfig import RunConfig
from finetune_local.s3 import S3Server
from finetune_trainer.artifacts import open_artifact
from finetune_trainer.checkpoints import Checkpoints
from finetune_trainer.errors import Failure
from finetune_trainer.optimizer_state import Moments
from finetune_trainer.publish import Output
from finetune_trainer.snapshot import Snapshot
from finetune_trainer.sources import fetch_data, fetch_model, resolve_model
from finetune_trainer.storage import Role, Store
from support.fault_proxy import (
    DENIED,
    EXPIRED,
    FULL,
    UNAVAILABLE,
    Corrupt,
    Cut,
    Fault,
    FaultProxy,
    Lost,
    Slow,
    fault_proxy,
)
from support.s3_server import NEXT_KEY, NEXT_SECRET, s3_server, write_keys
from support.trainer_runs import run_config
from unit.finetune_trainer.test_publish import PROVENANCE, SUMMARY

PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes
LARGE = PART_BYTES + 8  # two parts
PATIENCE = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=5),
        "max_backoff": timedelta(milliseconds=20),
        "base": 2,
    },
}
PASSING = [  # faults that end, and how often they strike
    pytest.param(UNAVAILABLE, 2, id="unavailable"),
    pytest.param(FULL, 2, id="full", marks=pytest.mark.slow),
    pytest.param(Cut(1000), 1, id="cut"),
    pytest.param(Slow(0.002), None, id="slow"),
    pytest.param(Lost(), 1, id="lost-answer"),
]
LASTING = [
    pytest.param(UNAVAILABLE, Reason.STORAGE_UNAVAILABLE, "did not answer", id="unavailable"),
    pytest.param(
        FULL, Reason.STORAGE_UNAVAILABLE, "no space left", id="full", marks=pytest.mark.slow
    ),
    pytest.param(Cut(0), Reason.STORAGE_UNAVAILABLE, "did not answer", id="cut"),
    pytest.param(DENIED, Reason.ACCESS_DENIED, "credentialsSecretRef", id="denied"),
    pytest.param(EXPIRED, Reason.ACCESS_DENIED, "has expired", id="expired"),
]
DAMAGING = pytest.param(Corrupt(), Reason.VERIFICATION_FAILED, "", id="corrupt")


def crossed(faults: Sequence[Any], places: Sequence[str]) -> list[Any]:
    """Return every fault at every place; those off a diagonal that meets all are slow."""
    return [
        pytest.param(
            *fault.values,
            place,
            id=f"{fault.id}-{place}",
            marks=fault.marks if row % len(places) == column else pytest.mark.slow,
        )
        for row, fault in enumerate(faults)
        for column, place in enumerate(places)
        if not (fault is DAMAGING and place.startswith("POST"))  # it has no body to alter
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr("finetune_trainer.buckets.RETRY", PATIENCE)
    monkeypatch.setattr("finetune_trainer.storage.CHUNK_BYTES", PART_BYTES)
    monkeypatch.setattr("finetune_trainer.storage.ROTATION_SECONDS", 0.0)
    with fault_proxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def secret(server: S3Server, proxy: FaultProxy, tmp_path: Path) -> str:
    return write_keys(tmp_path / "secret", server, AWS_ENDPOINT_URL=proxy.endpoint)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"s3://faults/{tmp_path.name}"


@pytest.fixture
def config(tmp_path: Path, uri: str, secret: str) -> RunConfig:
    (tmp_path / "scratch").mkdir()
    return run_config(tmp_path, output=uri, credentials={"output": secret, "data": secret})


def failure_of(action: object, *arguments: object) -> Failure:
    assert callable(action)
    with pytest.raises(Failure) as caught:
        action(*arguments)
    return caught.value


class TestDownload:
    @pytest.fixture
    def data(self, uri: str, secret: str) -> bytes:
        data = os.urandom(LARGE)
        Store(uri, Role.DATA, secret).write("train.jsonl", data)
        return data

    @staticmethod
    def fetch(uri: str, secret: str, directory: Path) -> Path:
        source = DataSource(uri=f"{uri}/train.jsonl")
        return fetch_data(source, directory, secret, lambda count: None)

    @pytest.mark.parametrize(("fault", "times"), PASSING)
    def test_goes_on_when_the_fault_ends(
        self,
        proxy: FaultProxy,
        uri: str,
        secret: str,
        tmp_path: Path,
        data: bytes,
        fault: Fault,
        times: int | None,
    ) -> None:
        rule = proxy.fail("GET .*train", fault, times)
        assert self.fetch(uri, secret, tmp_path / "data").read_bytes() == data
        assert rule.struck

    @pytest.mark.parametrize(("fault", "reason", "words"), LASTING)
    def test_ends_with_its_reason_and_leaves_no_part(
        self,
        proxy: FaultProxy,
        uri: str,
        secret: str,
        tmp_path: Path,
        data: bytes,
        fault: Fault,
        reason: Reason,
        words: str,
    ) -> None:
        proxy.fail("GET .*train", fault)
        failure = failure_of(self.fetch, uri, secret, tmp_path / "data")
        assert failure.reason is reason
        assert words in failure.message
        assert "spec.data" in failure.message or reason is not Reason.ACCESS_DENIED
        assert not [*(tmp_path / "data").rglob("*")]

    def test_a_model_is_taken_up_where_it_was(
        self, proxy: FaultProxy, uri: str, secret: str, tmp_path: Path
    ) -> None:
        store = Store(uri, Role.MODEL, secret)
        for name in ("config.json", "a.safetensors", "b.safetensors"):
            store.write(name, name.encode())
        index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
        store.write("model.safetensors.index.json", json.dumps(index).encode())
        source = resolve_model(ModelRecipe(uri=uri), secret)
        proxy.fail("GET .*b.safetensors", UNAVAILABLE)
        failure_of(fetch_model, source, source.files, tmp_path / "models", secret)
        proxy.heal()
        proxy.requests.clear()
        directory = fetch_model(source, source.files, tmp_path / "models", secret)
        assert (directory / "b.safetensors").read_bytes() == b"b.safetensors"
        assert not any("a.safetensors" in request for request in proxy.requests)


class TestCheckpoint:
    @pytest.fixture
    def checkpoints(self, config: RunConfig) -> Checkpoints:
        self.told: list[CheckpointRef] = []
        return self.open(config)

    def open(self, config: RunConfig) -> Checkpoints:
        output = Output.claim(config.layout)
        return Checkpoints(output, PROVENANCE, config.layout, self.told.append)

    @staticmethod
    def snapshot(step: int) -> Snapshot:
        weights = {"lora": torch.full((LARGE // 4,), float(step))}
        state = TrainingState(step=step, supervised_tokens=step, loss=1.0)
        return Snapshot(state, weights, Moments(), history=b"{}\n")

    def write(self, checkpoints: Checkpoints, step: int) -> None:
        checkpoints.save(self.snapshot(step))
        checkpoints.wait()

    def newest(self, config: RunConfig) -> int:
        """Return the step that the next attempt goes on from, its tensors checked."""
        layout = config.layout.model_copy(update={"attempt": config.layout.attempt + 1})
        found = self.open(config.model_copy(update={"layout": layout})).newest(lambda _: True)
        if found is None:
            return 0
        assert torch.equal(found.weights["lora"], self.snapshot(found.state.step).weights["lora"])
        return found.state.step

    @pytest.mark.parametrize(
        ("fault", "times", "of"), crossed(PASSING, ["state.safetensors", "manifest.json"])
    )
    def test_outlives_a_fault_that_ends(
        self,
        proxy: FaultProxy,
        config: RunConfig,
        checkpoints: Checkpoints,
        fault: Fault,
        times: int | None,
        of: str,
    ) -> None:
        rule = proxy.fail(f"(PUT|POST) .*{of}", fault, times)
        self.write(checkpoints, 1)
        assert rule.struck
        assert [ref.step for ref in self.told] == [1]
        assert self.newest(config) == 1

    @pytest.mark.parametrize(
        ("fault", "reason", "words", "of"),
        crossed(
            LASTING, ["POST .*uploads", "PUT .*partNumber=2", "POST .*uploadId", "PUT .*manifest"]
        ),
    )
    def test_a_lasting_fault_costs_that_checkpoint_only(
        self,
        proxy: FaultProxy,
        config: RunConfig,
        checkpoints: Checkpoints,
        caplog: pytest.LogCaptureFixture,
        fault: Fault,
        reason: Reason,
        words: str,
        of: str,
    ) -> None:
        self.write(checkpoints, 1)
        rule = proxy.fail(of, fault)
        self.write(checkpoints, 2)
        assert rule.struck
        assert "checkpoint of step 2 failed, training goes on" in caplog.text
        assert words in caplog.text
        proxy.heal()
        assert [ref.step for ref in self.told] == [1]
        assert self.newest(config) == 1
        self.write(checkpoints, 3)
        assert [ref.step for ref in self.told][-1] == 3
        assert self.newest(config) == 3

    def test_a_body_that_arrives_altered_is_sent_again(
        self, proxy: FaultProxy, config: RunConfig, checkpoints: Checkpoints
    ) -> None:
        rules = [proxy.fail(of, Corrupt(), 1) for of in ("PUT .*partNumber=2", "PUT .*manifest")]
        self.write(checkpoints, 1)
        assert all(rule.struck for rule in rules)
        assert self.newest(config) == 1

    def test_one_that_comes_back_altered_is_passed_over(
        self, proxy: FaultProxy, config: RunConfig, checkpoints: Checkpoints
    ) -> None:
        self.write(checkpoints, 1)
        self.write(checkpoints, 2)
        proxy.fail("GET .*00000002/state", Corrupt())
        assert self.newest(config) == 1

    def test_an_upload_goes_on_with_renewed_keys(
        self,
        proxy: FaultProxy,
        server: S3Server,
        config: RunConfig,
        checkpoints: Checkpoints,
        secret: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("finetune_trainer.storage.ROTATION_SECONDS", 60.0)
        old = server.credentials.access_key
        rule = proxy.fail(f"PUT .*partNumber=2.* by {old}$", EXPIRED)
        proxy.fail(f"by {old}$", Slow(0.01))
        renew = Timer(0.5, renew_keys, (Path(secret), server, proxy))
        renew.start()
        self.write(checkpoints, 1)
        renew.join()
        assert rule.struck
        assert [ref.step for ref in self.told] == [1]
        assert any(request.endswith(f"by {NEXT_KEY}") for request in proxy.requests)
        assert self.newest(config) == 1


class TestPublish:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        source = tmp_path / "source"
        source.mkdir()
        (source / "adapter.safetensors").write_bytes(os.urandom(LARGE))
        (source / "adapter_config.json").write_text("{}")
        return source

    @staticmethod
    def publish(config: RunConfig, source: Path, attempt: int) -> str:
        layout = config.layout.model_copy(update={"attempt": attempt})
        output = Output.claim(layout)
        return output.publish(source, PROVENANCE, SUMMARY, lambda count: None).digest

    @staticmethod
    def published(uri: str, secret: str, source: Path, directory: Path) -> str | None:
        """Return the digest that readers find, everything it names verified."""
        found = Store(uri, Role.OUTPUT, secret).read("latest.json")
        latest = Latest.model_validate_json(found)
        if latest.artifact is None:
            return None
        opened = open_artifact(uri, secret, directory)
        manifest = Manifest.model_validate_json((opened / "manifest.json").read_bytes())
        assert manifest.digest() == latest.artifact.digest
        name = "adapter.safetensors"
        assert (opened / name).read_bytes() == (source / name).read_bytes()
        return latest.artifact.digest

    @pytest.mark.parametrize(
        ("fault", "times", "of"),
        crossed(PASSING, ["latest.json", "manifest.json", "adapter.safetensors"]),
    )
    def test_succeeds_when_the_fault_ends(
        self,
        proxy: FaultProxy,
        config: RunConfig,
        uri: str,
        secret: str,
        source: Path,
        tmp_path: Path,
        fault: Fault,
        times: int | None,
        of: str,
    ) -> None:
        rule = proxy.fail(f"(PUT|POST|GET) .*{of}", fault, times)
        digest = self.publish(config, source, 1)
        assert rule.struck
        assert self.published(uri, secret, source, tmp_path / "opened") == digest

    @pytest.mark.parametrize(
        ("fault", "reason", "words", "of"),
        crossed(
            [*LASTING, DAMAGING],
            [
                "GET .*adapter.safetensors",
                "PUT .*partNumber=2",
                "POST .*uploadId",
                "PUT .*manifest.json",
                "GET .*manifest.json",
            ],
        ),
    )
    def test_fails_with_its_reason_and_readers_keep_the_old_one(
        self,
        proxy: FaultProxy,
        config: RunConfig,
        uri: str,
        secret: str,
        source: Path,
        tmp_path: Path,
        fault: Fault,
        reason: Reason,
        words: str,
        of: str,
    ) -> None:
        old = self.publish(config, source, 1)
        rule = proxy.fail(of, fault)
        failure = failure_of(self.publish, config, source, 2)
        assert rule.struck
        assert failure.reason is reason
        assert words in failure.message
        proxy.heal()
        assert self.published(uri, secret, source, tmp_path / "opened") == old
        new = self.publish(config, source, 3)
        assert self.published(uri, secret, source, tmp_path / "opened") == new != old

    @pytest.mark.parametrize("fault", [UNAVAILABLE, EXPIRED])
    def test_a_commit_that_fails_commits_nothing(
        self,
        proxy: FaultProxy,
        config: RunConfig,
        uri: str,
        secret: str,
        source: Path,
        tmp_path: Path,
        fault: Fault,
    ) -> None:
        output = Output.claim(config.layout)
        proxy.fail("PUT .*latest.json", fault)
        failure_of(output.publish, source, PROVENANCE, SUMMARY, lambda count: None)
        proxy.heal()
        assert self.published(uri, secret, source, tmp_path / "opened") is None

    def test_goes_on_with_renewed_keys_at_any_request(
        self,
        proxy: FaultProxy,
        server: S3Server,
        config: RunConfig,
        uri: str,
        secret: str,
        source: Path,
        tmp_path: Path,
    ) -> None:
        """The Secret is renewed, and the old keys are refused from then on."""
        output = Output.claim(config.layout)
        renew_keys(Path(secret), server, proxy)
        proxy.fail(f"by {server.credentials.access_key}$", DENIED)
        published = output.publish(source, PROVENANCE, SUMMARY, lambda count: None)
        assert self.published(uri, secret, source, tmp_path / "opened") == published.digest


def renew_keys(secret: Path, server: S3Server, proxy: FaultProxy) -> None:
    """Renew a mounted Secret."""
    write_keys(
        secret,
        server,
        AWS_ACCESS_KEY_ID=NEXT_KEY,
        AWS_SECRET_ACCESS_KEY=NEXT_SECRET,
        AWS_ENDPOINT_URL=proxy.endpoint,
    )

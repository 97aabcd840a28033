"""hf:// sources against a stand-in for the hub."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hf_xet import XetAuthenticationError, XetObjectNotFoundError

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource, ModelRecipe
from finetune_trainer.memory.shape import TensorHeader
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import waits
from finetune_trainer.store.headers import read_headers
from finetune_trainer.store.hub import ATTEMPTS, Repository, model_repository
from finetune_trainer.store.sources import fetch_data, fetch_model, resolve_model
from support.services.hub import COMMIT, Hub, hub_server

DEEP = b"[" * 4000 + b"]" * 4000
FILES = {"config.json": b"{}", "model.safetensors": b"w" * 100, "model.py": b"", "a.bin": b""}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        hub.files = {
            "models/org/name": FILES,
            "datasets/org/sums": {"deep/train.jsonl": b"{}\n"},
        }
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def impatient() -> Repository:
    """Return the repository, asked again at once where it fails."""
    return replace(model_repository("hf://org/name", None, None), longest_wait=0.0)


def secret(directory: Path, token: str) -> str:
    (directory / "HF_TOKEN").write_text(token + "\n")
    return str(directory)


def resolve(revision: str | None = None, credentials: str | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        resolve_model(ModelRecipe(uri="hf://org/name", revision=revision), credentials)
    assert "hf://org/name" in caught.value.message
    return caught.value


def test_a_model_is_pinned_to_its_commit_and_fetched_once(hub: Hub, tmp_path: Path) -> None:
    source = resolve_model(ModelRecipe(uri="hf://org/name", revision="main"), None)
    assert source.identity.revision == COMMIT
    assert [f.path for f in source.files] == ["config.json", "model.safetensors"]
    counted: list[int] = []
    directory = fetch_model(source, source.files, tmp_path, None, counted.append)
    assert (directory / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert sum(counted) == 102
    assert not (directory / "model.py").exists()
    before = len(hub.requests)
    counted.clear()
    assert fetch_model(source, source.files, tmp_path, None, counted.append) == directory
    assert sum(counted) == 102
    assert len(hub.requests) == before


@pytest.mark.parametrize("answer", [b"<html>Log in</html>", b"[]", b"{}", b'{"id": "x"}', DEEP])
def test_what_is_no_hub_is_told(hub: Hub, answer: bytes) -> None:
    hub.answer = answer
    failure = resolve()
    assert failure.reason is Reason.STORAGE_REFUSED
    assert "is no hub: see HF_ENDPOINT" in failure.message


def test_a_data_file(hub: Hub, tmp_path: Path) -> None:
    for uri in (
        "hf://datasets/org/sums/deep/train.jsonl",
        "hf://datasets/org/sums@main/deep/train.jsonl",
    ):
        path = fetch_data(DataSource(uri=uri), tmp_path, None, lambda count: None)
        assert path.read_bytes() == b"{}\n"
    with pytest.raises(Failure, match=r"hf://datasets/ORG/NAME/PATH") as caught:
        fetch_data(DataSource(uri="hf://org/sums/x"), tmp_path, None, lambda count: None)
    assert caught.value.reason is Reason.DATA_NOT_FOUND
    missing = DataSource(uri="hf://datasets/org/sums/none.jsonl")
    with pytest.raises(Failure, match=r"none\.jsonl does not exist") as caught:
        fetch_data(missing, tmp_path, None, lambda count: None)
    assert caught.value.reason is Reason.DATA_NOT_FOUND


def test_what_is_not_there_is_named(hub: Hub) -> None:
    failure = resolve(revision="v9")
    assert failure.reason is Reason.MODEL_NOT_FOUND
    assert "at v9 does not exist" in failure.message
    del hub.files["models/org/name"]
    assert resolve().reason is Reason.MODEL_NOT_FOUND


def test_the_token_comes_from_the_secret_and_is_not_told(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_good"
    source = resolve_model(ModelRecipe(uri="hf://org/name"), secret(tmp_path, "hf_good"))
    fetch_model(source, source.files, tmp_path / "cache", str(tmp_path))
    failure = resolve(credentials=secret(tmp_path, "hf_canary"))
    assert failure.reason is Reason.ACCESS_DENIED
    assert "spec.model.credentialsSecretRef" in failure.message
    assert "canary" not in failure.message


def test_a_gated_model_names_the_remedy(hub: Hub) -> None:
    hub.gated.add("models/org/name")
    failure = resolve()
    assert failure.reason is Reason.ACCESS_DENIED
    assert "accept its terms" in failure.message


def test_a_hub_that_is_down_for_a_moment_is_asked_again(hub: Hub) -> None:
    hub.failures = 2
    commit, _ = impatient().resolve()
    assert commit == COMMIT


def test_a_hub_that_stays_down_is_unavailable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.failures = 10**6
    with pytest.raises(Failure, match="did not answer for hf://org/name") as caught:
        impatient().resolve()
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert len(hub.requests) >= ATTEMPTS
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Failure) as caught:
        impatient().resolve()
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "86400"}, 310),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({}, 0),
    ],
)
def test_a_hub_that_asks_for_rest_gets_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], rest: float
) -> None:
    """Also where that takes more tries than an outage gets."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        assert waits() or not seconds, "else a run whose own bound is short would count as stalled"
        slept.append(seconds)

    monkeypatch.setattr("time.sleep", sleep)
    hub.failures, hub.failure, hub.headers = 2 * ATTEMPTS, 429, headers
    commit, _ = impatient().resolve()
    assert commit == COMMIT
    assert slept == [rest] * 2 * ATTEMPTS


def test_a_hub_without_end_of_rest_is_told_with_what_helps(hub: Hub) -> None:
    hub.failures, hub.failure = 10**6, 429
    with pytest.raises(Failure, match=r"asks for fewer requests .* \(429\)") as caught:
        replace(impatient(), patience=0.1).resolve()
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "spec.model.credentialsSecretRef has more" in caught.value.message


def test_a_refusal_of_the_hub_is_no_outage(hub: Hub) -> None:
    hub.failures, hub.failure = 1, 400
    with pytest.raises(Failure, match=r"the hub refused hf://org/name \(400\)") as caught:
        impatient().resolve()
    assert caught.value.reason is Reason.STORAGE_REFUSED


def test_a_model_of_pickles_is_refused(hub: Hub) -> None:
    hub.files["models/org/name"] = {"config.json": b"{}", "pytorch_model.bin": b""}
    failure = resolve()
    assert failure.reason is Reason.MODEL_UNSUPPORTED
    assert "pytorch_model.bin" in failure.message
    assert "safe_serialization=True" in failure.message


def test_an_index_on_the_hub_tells_which_files_are_weights(hub: Hub) -> None:
    index = json.dumps({"weight_map": {"w": "model-1.safetensors"}}).encode()
    hub.files["models/org/name"] = {
        "config.json": b"{}",
        "consolidated.safetensors": b"w",
        "model-1.safetensors": b"w",
        "model.safetensors.index.json": index,
    }
    source = resolve_model(ModelRecipe(uri="hf://org/name"), None)
    assert "consolidated.safetensors" not in {f.path for f in source.files}
    assert "model-1.safetensors" in {f.path for f in source.files}


def test_headers_are_read_without_the_weights(hub: Hub) -> None:
    tensors = {"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(10_000_000)
    hub.files["models/org/name"] = {**FILES, "model.safetensors": weights}
    source = resolve_model(ModelRecipe(uri="hf://org/name"), None)
    assert read_headers(source, None) == {"w": TensorHeader("BF16", (2, 3))}
    assert 0 < hub.sent < 200_000


@pytest.mark.parametrize("text", [None, DEEP])
def test_a_damaged_header_on_the_hub_is_named(hub: Hub, text: bytes | None) -> None:
    if text is not None:
        damaged = len(text).to_bytes(8, "little") + text
        hub.files["models/org/name"] = {**FILES, "model.safetensors": damaged}
    source = resolve_model(ModelRecipe(uri="hf://org/name"), None)
    with pytest.raises(Failure, match=r"model\.safetensors is damaged") as caught:
        read_headers(source, None)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    ("error", "reason", "tries"),
    [
        (XetAuthenticationError("token"), Reason.ACCESS_DENIED, 1),
        (XetObjectNotFoundError("xorb"), Reason.MODEL_NOT_FOUND, 1),
        (RuntimeError("No space left on device (os error 28)"), Reason.DISK_FULL, 1),
        (RuntimeError("Disk quota exceeded (os error 122)"), Reason.DISK_FULL, 1),
        (RuntimeError("canary: connection reset"), Reason.STORAGE_UNAVAILABLE, ATTEMPTS),
        (OSError("canary: stream ended"), Reason.STORAGE_UNAVAILABLE, ATTEMPTS),
    ],
)
def test_errors_of_the_transfer_are_told_apart(
    hub: Hub, tmp_path: Path, error: Exception, reason: Reason, tries: int
) -> None:
    breaking = Breaking(tmp_path, error)
    with pytest.raises(Failure) as caught:
        impatient().download("model.safetensors", COMMIT, tmp_path, breaking)
    assert (caught.value.reason, breaking.times) == (reason, tries)
    assert "hf://org/name model.safetensors" in caught.value.message
    assert "canary" not in caught.value.message


def test_errors_of_this_machine_s_disk_stay_what_they_are(hub: Hub, tmp_path: Path) -> None:
    breaking = Breaking(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        impatient().download("model.safetensors", COMMIT, tmp_path, breaking)
    assert breaking.times == 1


class Breaking:
    """Breaks transfers to a directory off, so that nothing of them is left."""

    def __init__(self, directory: Path, error: Exception) -> None:
        self._directory, self._error = directory, error
        self.times = 0

    def __call__(self, count: int) -> None:
        self.times += 1
        for partial in self._directory.rglob("*.incomplete"):
            partial.unlink()
        raise self._error

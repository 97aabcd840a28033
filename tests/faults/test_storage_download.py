"""Downloads from a store that fails: whole files or none, and the rest is fetched later."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource, ModelRecipe
from finetune_trainer.store.sources import fetch_data, fetch_model, resolve_model
from finetune_trainer.store.storage import Role, Store
from support.storage.fault_proxy import UNAVAILABLE, Fault, FaultProxy
from support.storage.faults import LARGE, LASTING, PASSING, failure_of

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def data(uri: str, secret: str) -> bytes:
    data = os.urandom(LARGE)
    Store(uri, Role.DATA, secret).write("train.jsonl", data)
    return data


def fetch(uri: str, secret: str, directory: Path) -> Path:
    source = DataSource(uri=f"{uri}/train.jsonl")
    return fetch_data(source, directory, secret, lambda count: None)


@pytest.mark.parametrize(("fault", "times"), PASSING)
def test_goes_on_when_the_fault_ends(
    proxy: FaultProxy,
    uri: str,
    secret: str,
    tmp_path: Path,
    data: bytes,
    fault: Fault,
    times: int | None,
) -> None:
    rule = proxy.fail("GET .*train", fault, times)
    assert fetch(uri, secret, tmp_path / "data").read_bytes() == data
    assert rule.struck


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(("fault", "reason", "words"), LASTING)
def test_ends_with_its_reason_and_leaves_no_part(
    proxy: FaultProxy,
    uri: str,
    secret: str,
    tmp_path: Path,
    fault: Fault,
    reason: Reason,
    words: str,
) -> None:
    proxy.fail("GET .*train", fault)
    failure = failure_of(fetch, uri, secret, tmp_path / "data")
    assert failure.reason is reason
    assert words in failure.message
    assert "spec.data" in failure.message or reason is not Reason.ACCESS_DENIED
    assert not [*(tmp_path / "data").rglob("*")]


def test_a_model_is_taken_up_where_it_was(
    proxy: FaultProxy, uri: str, secret: str, tmp_path: Path
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

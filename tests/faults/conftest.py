"""A real S3 server behind a proxy that fails on command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.runconfig import RunConfig
from finetune_local.s3 import S3Server
from support.storage.fault_proxy import FaultProxy, fault_proxy
from support.storage.faults import PATIENCE
from support.storage.s3_server import s3_server, write_keys
from support.trainer.runs import run_config


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(server.access.endpoint) as proxy:
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process retry at once, and read renewed keys at once."""
    monkeypatch.setattr("finetune_trainer.store.buckets.RETRY", PATIENCE)
    monkeypatch.setattr("finetune_trainer.store.storage.ROTATION_SECONDS", 0.0)
    monkeypatch.setattr("finetune_trainer.lead.PATIENCE_SECONDS", 0.0)


@pytest.fixture
def secret(server: S3Server, proxy: FaultProxy, tmp_path: Path) -> str:
    """Keys for the store as the proxy lets it be seen."""
    return write_keys(tmp_path / "secret", server, AWS_ENDPOINT_URL=proxy.endpoint)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"s3://faults/{tmp_path.name}"


@pytest.fixture
def config(tmp_path: Path, uri: str, secret: str) -> RunConfig:
    (tmp_path / "scratch").mkdir()
    return run_config(tmp_path, output=uri, credentials={"output": secret, "data": secret})

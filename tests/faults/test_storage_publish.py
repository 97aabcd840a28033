"""Publishing to a store that fails: readers see the old artifact or the new one, whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_contract.artifact import Latest, Manifest
from finetune_contract.reasons import Reason
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_local.s3 import S3Server
from finetune_trainer.store.artifacts import open_artifact
from finetune_trainer.store.publish import Output
from finetune_trainer.store.storage import Role, Store
from support.storage.fault_proxy import DENIED, EXPIRED, UNAVAILABLE, Fault, FaultProxy
from support.storage.faults import (
    DAMAGING,
    LARGE,
    LASTING,
    PASSING,
    crossed,
    failure_of,
    renew_keys,
)
from support.storage.publications import PROVENANCE, SUMMARY

ADAPTER = "adapter.safetensors"
Published = Callable[[], str | None]

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / ADAPTER).write_bytes(os.urandom(LARGE))
    (source / "adapter_config.json").write_text("{}")
    return source


@pytest.fixture
def published(uri: str, secret: str, source: Path, tmp_path: Path) -> Published:
    """Return what gives the digest that readers find, everything it names verified."""

    def published() -> str | None:
        found = Store(uri, Role.OUTPUT, secret).read("latest.json")
        latest = Latest.model_validate_json(found)
        if latest.artifact is None:
            return None
        opened = open_artifact(uri, secret, tmp_path / "opened")
        manifest = Manifest.model_validate_json((opened / "manifest.json").read_bytes())
        assert manifest.digest() == latest.artifact.digest
        assert (opened / ADAPTER).read_bytes() == (source / ADAPTER).read_bytes()
        return latest.artifact.digest

    return published


def claim(config: RunConfig, attempt: int) -> Output:
    return Output.claim(config.layout.model_copy(update={"attempt": attempt}))


def publish(output: Output, source: Path) -> PublishedArtifact:
    return output.publish(source, PROVENANCE, SUMMARY, lambda count: None)


@pytest.mark.parametrize(
    ("fault", "times", "of"),
    crossed(PASSING, ["latest.json", "manifest.json", ADAPTER]),
)
def test_succeeds_when_the_fault_ends(
    proxy: FaultProxy,
    config: RunConfig,
    source: Path,
    published: Published,
    fault: Fault,
    times: int | None,
    of: str,
) -> None:
    rule = proxy.fail(f"(PUT|POST|GET) .*{of}", fault, times)
    digest = publish(claim(config, 1), source).digest
    assert rule.struck
    assert published() == digest


@pytest.mark.parametrize(
    ("fault", "reason", "words", "of"),
    crossed(
        [*LASTING, DAMAGING],
        [
            f"GET .*{ADAPTER}",
            "PUT .*partNumber=2",
            "POST .*uploadId",
            "PUT .*manifest.json",
            "GET .*manifest.json",
        ],
    ),
)
def test_fails_with_its_reason_and_readers_keep_the_old_one(
    proxy: FaultProxy,
    config: RunConfig,
    source: Path,
    published: Published,
    fault: Fault,
    reason: Reason,
    words: str,
    of: str,
) -> None:
    old = publish(claim(config, 1), source).digest
    rule = proxy.fail(of, fault)
    failure = failure_of(lambda: publish(claim(config, 2), source))
    assert rule.struck
    assert failure.reason is reason
    assert words in failure.message
    proxy.heal()
    assert published() == old
    new = publish(claim(config, 3), source).digest
    assert published() == new != old


@pytest.mark.parametrize("fault", [UNAVAILABLE, EXPIRED])
def test_a_commit_that_fails_commits_nothing(
    proxy: FaultProxy, config: RunConfig, source: Path, published: Published, fault: Fault
) -> None:
    output = claim(config, 1)
    proxy.fail("PUT .*latest.json", fault)
    failure_of(publish, output, source)
    proxy.heal()
    assert published() is None


def test_goes_on_with_renewed_keys_at_any_request(
    proxy: FaultProxy,
    server: S3Server,
    config: RunConfig,
    secret: str,
    source: Path,
    published: Published,
) -> None:
    """The Secret is renewed, and the old keys are refused from then on."""
    output = claim(config, 1)
    renew_keys(Path(secret), server, proxy)
    proxy.fail(f"by {server.access.access_key}$", DENIED)
    digest = publish(output, source).digest
    assert published() == digest

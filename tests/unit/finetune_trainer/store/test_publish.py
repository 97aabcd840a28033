"""Claim, upload, read back, commit on file://; the same on a real S3 server in test_s3.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_contract.artifact import Latest, Manifest
from finetune_contract.reasons import Reason
from finetune_contract.result import PublishedArtifact
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.artifacts import open_artifact
from finetune_trainer.store.publish import Output, find_published, open_output
from finetune_trainer.store.storage import Role, Store
from support.storage.meddled_store import meddled
from support.storage.publications import PROVENANCE, SUMMARY, run_directory
from support.trainer.runs import run_config


def claim(root: Path, uid: str = "uid-1", attempt: int = 1) -> Output:
    job = {"name": "job", "namespace": "ns", "uid": uid}
    return Output.claim(run_config(root, job=job, attempt=attempt).layout)


def through(kind: type[Store], root: Path) -> Store:
    """Return the store of the output, as one of another kind."""
    return kind((root / "out").as_uri(), Role.OUTPUT)


def publish(output: Output, root: Path, text: str = "weights") -> PublishedArtifact:
    source = root / f"source-{output.job.uid}-{output.attempt}"
    source.mkdir(exist_ok=True)
    (source / "adapter_model.safetensors").write_text(text)
    (source / "README.md").write_text("card")
    return output.publish(source, PROVENANCE, SUMMARY, lambda count: None)


def latest(root: Path) -> Latest:
    return Latest.model_validate_json((root / "out" / "latest.json").read_bytes())


def test_published_files_are_described_by_the_manifest_and_pointed_to(tmp_path: Path) -> None:
    counted: list[int] = []
    output = claim(tmp_path)
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a").write_text("aa")
    (source / "deep" / "b").write_text("bbb")
    published = output.publish(source, PROVENANCE, SUMMARY, counted.append)
    assert sum(counted) == 2 * 5  # written, then read back
    directory = run_directory(tmp_path / "out") / "artifact"
    manifest = Manifest.model_validate_json((directory / "manifest.json").read_bytes())
    assert [(f.path, f.bytes) for f in manifest.files] == [("a", 2), ("deep/b", 3)]
    assert manifest.run.model_dump() == {"name": "job", "uid": "uid-1", "attempt": 1}
    assert (manifest.provenance, manifest.training) == (PROVENANCE, SUMMARY)
    assert published == PublishedArtifact(uri=directory.as_uri(), digest=manifest.digest(), bytes=5)
    pointer = latest(tmp_path).artifact
    assert pointer is not None
    assert pointer.path == str(directory.relative_to(tmp_path / "out"))
    assert pointer.digest == manifest.digest()
    assert pointer.provenance == PROVENANCE
    for uri in (tmp_path / "out", directory):
        opened = open_artifact(uri.as_uri(), None, tmp_path / "opened")
        assert (opened / "deep" / "b").read_text() == "bbb"
        assert (opened / "manifest.json").read_bytes() == manifest.encode()


def test_a_claim_keeps_the_artifact_that_readers_use(tmp_path: Path) -> None:
    publish(claim(tmp_path), tmp_path)
    before = latest(tmp_path)
    claim(tmp_path, uid="uid-2")
    assert latest(tmp_path).artifact == before.artifact
    assert latest(tmp_path).claim.uid == "uid-2"


def test_a_late_writer_of_an_old_attempt_changes_nothing(tmp_path: Path) -> None:
    old = claim(tmp_path, attempt=1)
    new = claim(tmp_path, attempt=2)
    publish(new, tmp_path, "new")
    before = (tmp_path / "out" / "latest.json").read_bytes()
    with pytest.raises(Failure, match=r"attempt 2 of the job with uid uid-1") as caught:
        publish(old, tmp_path, "old")
    assert caught.value.reason is Reason.SUPERSEDED
    assert (tmp_path / "out" / "latest.json").read_bytes() == before


def test_an_old_attempt_is_fenced_off_before_the_new_one_commits(tmp_path: Path) -> None:
    old = claim(tmp_path, attempt=1)
    claim(tmp_path, attempt=2)
    with pytest.raises(Failure) as caught:
        publish(old, tmp_path)
    assert caught.value.reason is Reason.SUPERSEDED
    assert latest(tmp_path).artifact is None


def test_an_old_attempt_that_starts_late_does_not_take_the_claim(tmp_path: Path) -> None:
    claim(tmp_path, attempt=2)
    with pytest.raises(Failure) as caught:
        claim(tmp_path, attempt=1)
    assert caught.value.reason is Reason.SUPERSEDED
    assert latest(tmp_path).claim.attempt == 2
    assert claim(tmp_path, uid="uid-2", attempt=1).attempt == 1  # another job's attempt 1 may


def readers_find(root: Path) -> str:
    """Return the weights that a reader gets, every file of the artifact verified."""
    directory = open_artifact((root / "out").as_uri(), None, root / "opened")
    return (directory / "adapter_model.safetensors").read_text()


def test_of_two_starts_of_an_attempt_the_first_may_publish_last(tmp_path: Path) -> None:
    first, second = claim(tmp_path), claim(tmp_path)
    publish(second, tmp_path, "second")
    with pytest.raises(Failure, match="attempt 1 of the job with uid uid-1") as caught:
        publish(first, tmp_path, "first")
    assert caught.value.reason is Reason.SUPERSEDED
    assert readers_find(tmp_path) == "second"


def test_of_two_starts_of_an_attempt_the_second_may_come_into_the_firsts_uploads(
    tmp_path: Path,
) -> None:
    def overtaken(request: str, path: str) -> None:
        if request == "upload" and path.endswith("README.md"):
            publish(claim(tmp_path), tmp_path / "elsewhere", "second")

    (tmp_path / "elsewhere").mkdir()
    first = meddled(claim(tmp_path), overtaken)
    with pytest.raises(Failure) as caught:
        publish(first, tmp_path, "first")
    assert caught.value.reason is Reason.SUPERSEDED
    assert readers_find(tmp_path) == "second"


def test_nothing_is_uploaded_for_a_claim_that_is_lost(tmp_path: Path) -> None:
    asked: list[str] = []
    first = meddled(claim(tmp_path), lambda request, path: asked.append(request))
    claim(tmp_path)
    with pytest.raises(Failure) as caught:
        publish(first, tmp_path)
    assert caught.value.reason is Reason.SUPERSEDED
    assert asked == ["read_tagged"]


def test_looking_at_an_output_claims_nothing(tmp_path: Path) -> None:
    running = claim(tmp_path, uid="uid-1", attempt=2)
    for uid, attempt in (("uid-1", 2), ("uid-2", 1)):
        job = {"name": "job", "namespace": "ns", "uid": uid}
        store = open_output(run_config(tmp_path, job=job, attempt=attempt).layout)
        assert find_published(store, PROVENANCE, lambda count: None) is None
    with pytest.raises(Failure, match="was claimed by attempt 2") as caught:
        open_output(run_config(tmp_path, job={**job, "uid": "uid-1"}, attempt=1).layout)
    assert caught.value.reason is Reason.SUPERSEDED
    publish(running, tmp_path)


class Retried(Store):
    """Loses the answer to a conditional write, so that it is sent again."""

    def write_if(self, path: str, data: bytes, etag: str | None) -> str:
        super().write_if(path, data, etag)
        return super().write_if(path, data, etag)


def test_a_commit_whose_answer_was_lost_counts(tmp_path: Path) -> None:
    publish(replace(claim(tmp_path), store=through(Retried, tmp_path)), tmp_path)
    assert latest(tmp_path).artifact is not None


class Careless(Store):
    """Looks at no condition."""

    def write_if(self, path: str, data: bytes, etag: str | None) -> str:
        self.write(path, data)
        return "etag"


def test_a_store_without_conditional_writes_is_named(tmp_path: Path) -> None:
    store = through(Careless, tmp_path)
    with pytest.raises(Failure, match=r"ignores If-Match or If-None-Match.*spec\.output\.uri") as c:
        Output.claim(run_config(tmp_path).layout, store)
    assert c.value.reason is Reason.STORAGE_UNSUPPORTED


class Damaging(Store):
    """Alters what is uploaded."""

    def upload(self, path: str, source: Path) -> None:
        self.write(path, source.read_bytes()[:-1] + b"?")


def test_what_is_damaged_on_its_way_is_not_committed(tmp_path: Path) -> None:
    output = replace(claim(tmp_path), store=through(Damaging, tmp_path))
    with pytest.raises(Failure, match="was altered") as caught:
        publish(output, tmp_path)
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    assert latest(tmp_path).artifact is None


def test_an_equal_artifact_is_found_and_verified(tmp_path: Path) -> None:
    published = publish(claim(tmp_path), tmp_path)
    read: list[int] = []
    store = claim(tmp_path, uid="uid-2").store
    assert find_published(store, PROVENANCE, read.append) == published
    assert sum(read) == published.bytes
    other = PROVENANCE.model_copy(update={"recipe_digest": "sha256:" + "3" * 64})
    assert find_published(store, other, read.append) is None
    assert find_published(claim(tmp_path / "empty").store, PROVENANCE, read.append) is None


def test_an_equal_artifact_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    published = publish(claim(tmp_path), tmp_path)
    Path(published.uri.removeprefix("file://"), "README.md").write_text("carb")
    store = open_output(run_config(tmp_path).layout)
    assert find_published(store, PROVENANCE, lambda count: None) is None


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return Path(publish(claim(tmp_path), tmp_path).uri.removeprefix("file://"))


def refused(root: Path) -> str:
    with pytest.raises(Failure) as caught:
        open_artifact((root / "out").as_uri(), None, root / "opened")
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    return caught.value.message


def test_damage_is_refused_by_name(artifact: Path, tmp_path: Path) -> None:
    weights = artifact / "adapter_model.safetensors"
    weights.write_text("weighty")
    assert f"{weights.as_uri()} was altered" in refused(tmp_path)
    assert not (tmp_path / "opened" / weights.name).exists()
    weights.write_text("weight")
    assert f"{weights.as_uri()} has 6 bytes, its manifest says 7" in refused(tmp_path)
    weights.unlink()
    assert f"{weights.as_uri()} is missing" in refused(tmp_path)


def test_without_its_manifest_an_artifact_does_not_exist(artifact: Path, tmp_path: Path) -> None:
    manifest = artifact / "manifest.json"
    text = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(text))  # the same words, other bytes
    assert "is not the one latest.json names" in refused(tmp_path)
    manifest.write_text("{")
    assert "is not the one latest.json names" in refused(tmp_path)
    manifest.unlink()
    assert f"{manifest.as_uri()} does not exist" in refused(tmp_path)
    with pytest.raises(Failure, match="does not exist, so the artifact does not"):
        open_artifact(artifact.as_uri(), None, tmp_path / "opened")


def test_pointers_and_manifests_of_another_kind_are_refused(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "latest.json").write_text("{}")
    assert "latest.json is not a pointer of this version" in refused(tmp_path)
    (tmp_path / "out" / "latest.json").unlink()
    claim(tmp_path)
    assert "none has been published yet" in refused(tmp_path)
    (artifact / "manifest.json").write_text("{}")
    with pytest.raises(Failure, match="is not a manifest of this version"):
        open_artifact(artifact.as_uri(), None, tmp_path / "opened")


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil"])
def test_a_manifest_can_not_write_outside_the_directory(
    artifact: Path, tmp_path: Path, path: str
) -> None:
    document = json.loads((artifact / "manifest.json").read_text())
    document["files"][0]["path"] = path
    (artifact / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(Failure, match="names a file outside the artifact"):
        open_artifact(artifact.as_uri(), None, tmp_path / "opened")

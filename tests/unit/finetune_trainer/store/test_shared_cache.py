"""A cache that others write to: what is used is what was fetched, and no link is followed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from finetune_contract.reasons import Reason
from finetune_contract.recipe import ModelRecipe
from finetune_local import s3
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import waits
from finetune_trainer.store.appearing import alone, appearing, own_directory
from finetune_trainer.store.digests import DIRECTORY
from finetune_trainer.store.sources import ModelSource, fetch_model, resolve_model
from finetune_trainer.store.storage import Role, Store
from support.services.hub import Hub, hub_server
from support.storage.s3_server import s3_server, write_keys

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}
PLANTED = b"plantedweights"
Fetch = Callable[[], Path]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.files["models/org/name"] = dict(FILES)
        yield hub


@pytest.fixture(params=["hub", "bucket"])
def source(
    request: pytest.FixtureRequest, server: s3.S3Server, hub: Hub, tmp_path: Path
) -> tuple[ModelSource, str | None]:
    if request.param == "hub":
        return resolve_model(ModelRecipe(uri="hf://org/name"), None), None
    secret = write_keys(tmp_path / "secret", server)
    store = Store(f"s3://cache/{tmp_path.name}", Role.MODEL, secret)
    for name, data in FILES.items():
        store.write(name, data)
    return resolve_model(ModelRecipe(uri=store.uri), secret), secret


@pytest.fixture
def fetch(source: tuple[ModelSource, str | None], tmp_path: Path) -> Fetch:
    """Return what fetches the model in a pod of its own."""
    pods = iter(range(9))

    def fetch() -> Path:
        model, secret = source
        checked = tmp_path / f"pod-{next(pods)}"
        return fetch_model(model, model.files, tmp_path / "cache", secret, checked=checked)

    return fetch


def content(directory: Path) -> dict[str, bytes]:
    files = (f for f in directory.iterdir() if not f.name.startswith("."))
    return {f.name: f.read_bytes() for f in files}


def test_what_is_whole_is_not_fetched_again(fetch: Fetch) -> None:
    directory = fetch()
    assert content(directory) == FILES
    before = {f.name: f.stat().st_ino for f in directory.iterdir()}
    assert fetch() == directory
    assert {f.name: f.stat().st_ino for f in directory.iterdir()} == before


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("same_size", [True, False])
def test_what_another_wrote_is_not_used(
    fetch: Fetch, name: str, same_size: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch() / name
    path.write_bytes(b"x" * len(FILES[name]) if same_size else PLANTED)
    assert content(fetch()) == FILES
    assert f"{path} is not what was fetched" in caplog.text


def test_a_link_is_replaced_and_not_followed(fetch: Fetch, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["model.safetensors"])
    path = fetch() / "model.safetensors"
    path.unlink()
    path.symlink_to(outside)
    assert content(fetch()) == FILES
    assert not path.is_symlink()
    assert outside.read_bytes() == FILES["model.safetensors"]


def test_a_directory_in_a_file_s_place_is_replaced(fetch: Fetch) -> None:
    path = fetch() / "config.json"
    path.unlink()
    (path / "x").mkdir(parents=True)
    assert content(fetch()) == FILES


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "adapter_config.json", "model.safetensors.index.json", "x/y.py"]
)
def test_what_another_put_beside_the_model_is_not_found(fetch: Fetch, name: str) -> None:
    directory = fetch()
    planted = directory / name
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(PLANTED)
    assert content(fetch()) == FILES
    kept = {path.name for path in directory.iterdir()}
    assert kept - set(FILES) <= {f".{file}.sha256" for file in FILES}


def test_what_is_of_another_kind_than_it_should_be_is_named(fetch: Fetch, tmp_path: Path) -> None:
    directory = fetch()
    lock = directory.with_name(f"{directory.name}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(Failure, match=r"\.lock is a directory where a lock is to be: remove it"):
        fetch()
    lock.rmdir()
    directory.rename(tmp_path / "moved")
    directory.write_text("")
    with pytest.raises(Failure, match="is no directory: remove it from the cache"):
        fetch()


@pytest.mark.parametrize("place", ["cache", "directory", "lock"])
def test_a_link_in_place_of_a_directory_or_a_lock_is_refused(
    fetch: Fetch, tmp_path: Path, place: str
) -> None:
    directory = fetch()
    path = {
        "cache": tmp_path / "cache",
        "directory": directory,
        "lock": directory.with_name(f"{directory.name}.lock"),
    }[place]
    elsewhere = tmp_path / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(Failure, match="is a symbolic link") as caught:
        fetch()
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    assert str(path) in caught.value.message


def test_a_record_that_is_a_link_or_no_digest_is_none(fetch: Fetch, tmp_path: Path) -> None:
    for record in fetch().glob(".*.sha256"):
        record.write_text("sha256:x")
    assert content(fetch()) == FILES
    for record in fetch().glob(".*.sha256"):
        record.rename(tmp_path / record.name)
        record.symlink_to(tmp_path / record.name)
    assert not any(r.is_symlink() for r in fetch().glob(".*.sha256"))


def test_what_a_killed_pod_left_is_removed(fetch: Fetch, tmp_path: Path) -> None:
    directory = fetch()
    (directory / ".incoming-abc").mkdir()
    (directory / ".incoming-abc" / "part").write_bytes(b"x")
    (directory / ".model.safetensors.0123456789abcdef").write_bytes(b"x")
    (directory / ".incoming-link").symlink_to(tmp_path)
    assert content(fetch()) == FILES
    left = {f.name for f in directory.iterdir()} - FILES.keys()
    assert all(name.endswith(".sha256") for name in left)
    assert tmp_path.exists()


def test_a_rank_reads_weights_once_for_its_pod(
    source: tuple[ModelSource, str | None], tmp_path: Path
) -> None:
    model, secret = source
    for _ in range(2):
        fetch_model(model, model.files, tmp_path / "cache", secret, checked=tmp_path / "pod")
    large = [f for f in model.files if f.etag.startswith("sha256:")] or model.files
    assert len(list((tmp_path / "pod" / DIRECTORY).iterdir())) == len(large)


def test_what_the_hub_sends_altered_is_refused(hub: Hub, tmp_path: Path) -> None:
    model = resolve_model(ModelRecipe(uri="hf://org/name"), None)
    hub.files["models/org/name"]["model.safetensors"] = b"weighty"
    with pytest.raises(Failure, match=r"model\.safetensors arrived altered") as caught:
        fetch_model(model, model.files, tmp_path / "cache", None)
    assert caught.value.reason is Reason.VERIFICATION_FAILED


def test_a_lock_is_waited_for_with_a_word_and_a_bound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    lock = tmp_path / "lock"
    with (
        FileLock(lock),
        pytest.raises(Failure, match="another process has held") as caught,
        alone(lock, seconds=0.3, word=0.1),
    ):
        pass
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert f"waits for {lock}" in caplog.text
    with alone(lock, seconds=0):
        pass


def release_once_waited_for(held: FileLock) -> None:
    deadline = time.monotonic() + 30
    while not waits() and time.monotonic() < deadline:
        time.sleep(0.01)
    if waits():  # else the other gives up
        held.release()


def test_a_lock_that_is_given_up_is_taken(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    held = FileLock(lock, thread_local=False)
    held.acquire()
    threading.Thread(target=release_once_waited_for, args=(held,)).start()
    with alone(lock, seconds=60, word=0.05):
        assert not held.is_locked
        assert not waits(), "it is held, and what is done meanwhile has no bound of its own"


def test_nobody_can_foresee_the_name_of_what_is_being_made(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        with appearing(tmp_path / "x") as partial:
            partial.write_text("x")
            names.add(partial.name)
    assert len(names) == 2


def test_a_directory_of_one_s_own_is_made_or_found(tmp_path: Path) -> None:
    for _ in range(2):
        assert own_directory(tmp_path / "a" / "b").is_dir()

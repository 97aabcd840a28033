"""Publishing dies before and after every write; readers see the old artifact or the new, whole."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from finetune_contract.artifact import Latest
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.artifacts import open_artifact
from finetune_trainer.store.publish import Output
from support.storage.publications import PROVENANCE, SUMMARY
from support.trainer.runs import run_config

WRITES = ("upload", "write", "write_if")


class Crash(BaseException):
    """The process is gone: nothing catches it."""


def attempt(root: Path, number: int, text: str, crash_at: int | None = None) -> int:
    """Claim and publish; die at the given moment. Return how many moments there are."""
    moments = 0

    def moment() -> None:
        nonlocal moments
        if moments == crash_at:
            raise Crash
        moments += 1

    def around(write: Any) -> Any:
        def crashing(*arguments: Any) -> Any:
            moment()
            answer = write(*arguments)
            moment()
            return answer

        return crashing

    output = Output.claim(run_config(root, attempt=number).layout)
    for name in WRITES:
        setattr(output.store, name, around(getattr(output.store, name)))
    source = root / f"source-{number}"
    source.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (source / name).write_text(f"{text} {name}")
    output.publish(source, PROVENANCE, SUMMARY, lambda count: None)
    return moments


def readers_see(root: Path) -> str | None:
    """Return the text of the artifact that latest.json names, if it names one."""
    latest = Latest.model_validate_json((root / "out" / "latest.json").read_bytes())
    if latest.artifact is None:
        return None
    directory = open_artifact((root / "out").as_uri(), None, root / "opened")
    first, second = ((directory / name).read_text().removesuffix(f" {name}") for name in "ab")
    assert first == second
    return first


# Two files, the manifest and the commit, before and after each; on file:// the commit itself
# writes under a lock, which is two moments more.
MOMENTS = 10
COMMITTED = 8


@pytest.mark.parametrize("crash_at", range(MOMENTS))
def test_a_crash_leaves_the_old_or_the_new(tmp_path: Path, crash_at: int) -> None:
    attempt(tmp_path, 1, "old")
    with pytest.raises(Crash):
        attempt(tmp_path, 2, "new", crash_at)
    assert readers_see(tmp_path) == ("new" if crash_at >= COMMITTED else "old")
    attempt(tmp_path, 3, "newest")
    assert readers_see(tmp_path) == "newest"


@pytest.mark.parametrize("crash_at", range(MOMENTS))
def test_a_first_attempt_that_crashes_leaves_nothing_or_all(tmp_path: Path, crash_at: int) -> None:
    with pytest.raises(Crash):
        attempt(tmp_path, 1, "first", crash_at)
    assert readers_see(tmp_path) == ("first" if crash_at >= COMMITTED else None)


def test_these_are_all_the_moments(tmp_path: Path) -> None:
    assert attempt(tmp_path, 1, "first") == MOMENTS


@pytest.mark.parametrize("overtaken_at", range(COMMITTED - 1))
def test_a_later_claim_at_any_moment_before_the_commit_wins(
    tmp_path: Path, overtaken_at: int
) -> None:
    """The old attempt is a zombie: it goes on writing after the new one claimed."""
    moments = 0
    one_at_a_time = Lock()  # files go up in threads

    def moment() -> None:
        nonlocal moments
        with one_at_a_time:
            if moments == overtaken_at:
                attempt(tmp_path, 2, "new")
            moments += 1

    def around(write: Any) -> Any:
        def overtaken(*arguments: Any) -> Any:
            moment()
            answer = write(*arguments)
            moment()
            return answer

        return overtaken

    old = Output.claim(run_config(tmp_path, attempt=1).layout)
    for name in WRITES:
        setattr(old.store, name, around(getattr(old.store, name)))
    source = tmp_path / "source-1"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_text(f"old {name}")
    with pytest.raises(Failure, match="was claimed by attempt 2"):
        old.publish(source, PROVENANCE, SUMMARY, lambda count: None)
    assert readers_see(tmp_path) == "new"

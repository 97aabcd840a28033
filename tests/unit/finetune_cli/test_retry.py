"""`finetune retry`: whom it lets go on, and what it asks of kubectl, which a program here plays."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_cli.app import app

Json = Any
PLAYED = """#!/bin/sh
echo "$@" >>{calls}
case $1 in
get) cat {job} ;;
patch) cat {refusal} >&2; [ ! -s {refusal} ] ;;
esac
"""


class Kubectl:
    """A program `kubectl` that shows one job and takes, or refuses, a patch of it."""

    def __init__(self, directory: Path) -> None:
        self._files = {name: directory / name for name in ("calls", "job", "refusal")}
        for path in self._files.values():
            path.touch()
        program = directory / "kubectl"
        program.write_text(PLAYED.format(**self._files))
        program.chmod(0o755)

    def shows(
        self,
        succeeded: str | None,
        retries: int | None = None,
        reason: str = "Running",
        **status: Json,
    ) -> None:
        condition = {"type": "Succeeded", "status": succeeded, "reason": reason}
        status["conditions"] = [condition] if succeeded else []
        policy = {} if retries is None else {"runPolicy": {"retries": retries}}
        job = {"metadata": {"resourceVersion": "77"}, "spec": policy, "status": status}
        self._files["job"].write_text(json.dumps(job))

    def refuses(self, words: bytes) -> None:
        self._files["refusal"].write_bytes(words)

    @property
    def calls(self) -> list[str]:
        return self._files["calls"].read_text().splitlines()


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return Kubectl(tmp_path)


def retry(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["retry", "sums", *arguments])


@pytest.mark.parametrize(
    ("retries", "followed", "asked"), [(None, None, 1), (0, 0, 1), (2, 2, 3), (1, 3, 4)]
)
def test_it_raises_retries_by_one_if_the_job_is_as_it_was_seen(
    kubectl: Kubectl, retries: int | None, followed: int | None, asked: int
) -> None:
    status = {} if followed is None else {"retry": {"retries": followed}}
    kubectl.shows("False", retries, **status)
    result = retry("--namespace", "team")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "finetunejob/sums goes on from the start\n"
    job = "finetunejobs.finetune.dev/sums"
    patch = {"metadata": {"resourceVersion": "77"}, "spec": {"runPolicy": {"retries": asked}}}
    assert kubectl.calls == [
        f"get {job} --output=json --namespace team",
        f"patch {job} --type=merge --patch={json.dumps(patch)} --namespace team",
    ]


def test_it_says_from_which_step(kubectl: Kubectl) -> None:
    kubectl.shows("False", checkpoint={"step": 40})
    assert retry().stdout == "finetunejob/sums goes on from step 40\n"
    assert kubectl.calls[0] == "get finetunejobs.finetune.dev/sums --output=json"


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (("True",), "has succeeded"),
        (("Unknown",), "has not failed (it is Running)"),
        (("Unknown", None, "Run\x1b[2J\n"), r"has not failed (it is Run\x1b[2J )"),
        ((None,), "has not failed (it is new)"),
        (("False", 1), "was told to go on already"),
    ],
)
def test_a_job_that_has_not_failed_is_left_alone(
    kubectl: Kubectl, shown: tuple[Any, ...], words: str
) -> None:
    kubectl.shows(*shown)
    result = retry()
    assert result.exit_code == 3
    assert result.stderr == f"finetunejob/sums {words}; nothing was changed\n"
    assert len(kubectl.calls) == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"the object has been modified\n", "the object has been modified"),
        (b"\x1b[2Jline\nline\xff", "\\x1b[2Jline line\ufffd"),
        (b"x" * 5000, "x" * 999 + "…"),
        (b"\n", "ended with 1"),
    ],
)
def test_what_kubectl_refuses_is_told_in_printable_words(
    kubectl: Kubectl, said: bytes, shown: str
) -> None:
    kubectl.shows("False")
    kubectl.refuses(said)
    result = retry()
    remedy = "; once that is mended, run the same again\n"
    assert (result.exit_code, result.stderr) == (4, f"kubectl patch: {shown}{remedy}")


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = retry()
    assert (result.exit_code, result.stderr) == (2, "kubectl is not on the PATH\n")

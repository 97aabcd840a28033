"""Lines of the operator's log, and the job that they are about."""

import asyncio
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator import logs
from finetune_operator.__main__ import main

log = logging.getLogger("finetune_operator.test")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, objects = logging.getLogger(), logging.getLogger("kopf.objects")
    handlers, levels = root.handlers[:], (root.level, objects.level)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    objects.setLevel(levels[1])


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_one_object_a_line_whatever_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    log.info("two\nlines, %s and \ud800", "\x1b[2J")
    log.debug("not asked for")
    (line,) = written(capsys)
    assert line.pop("time")[-5:].endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "finetune_operator.test",
        "message": "two\nlines, \x1b[2J and \ud800",
    }


def test_a_time_is_utc_with_milliseconds(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    record = logging.LogRecord("x", logging.INFO, "", 0, "m", (), None)
    record.created = 1772366400.25
    logging.getLogger().handle(record)
    assert written(capsys)[0]["time"] == "2026-03-01T12:00:00.250Z"


async def test_lines_of_a_pass_and_of_its_tasks_name_the_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def child() -> None:
        await asyncio.sleep(0)
        log.warning("of a task")

    logs.configure("INFO", "json")
    with logs.about("team", "bot"):
        log.info("of the pass")
        task = asyncio.create_task(child())
    log.info("of no pass")
    await task
    told = [(line["message"], line.get("job")) for line in written(capsys)]
    assert told == [
        ("of the pass", "team/bot"),
        ("of no pass", None),
        ("of a task", "team/bot"),
    ]


def test_what_kopf_says_of_a_job_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    kopf = logging.getLogger("kopf.objects")
    job = {"kind": "FineTuneJob", "namespace": "team", "name": "bot"}
    kopf.warning("of a job", extra={"k8s_ref": job})
    kopf.warning("of a pod", extra={"k8s_ref": {**job, "kind": "Pod"}})
    kopf.info("a watch event")
    assert [line.get("job") for line in written(capsys)] == ["team/bot", None]


def test_a_traceback_is_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    try:
        raise KeyError("gone")
    except KeyError:
        log.exception("a pass failed")
    (line,) = written(capsys)
    assert line["traceback"].startswith("Traceback")
    assert line["traceback"].endswith("KeyError: 'gone'")


def test_a_warning_of_a_library_is_a_line_like_any_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO", "json")
    warnings.warn("a coroutine was never awaited", RuntimeWarning, stacklevel=1)
    (line,) = written(capsys)
    assert line["logger"] == "py.warnings"
    assert "RuntimeWarning: a coroutine was never awaited" in line["message"]


def test_what_ends_the_operator_is_a_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("{}")
    for name, value in {
        "KUBECONFIG": str(config),
        "FINETUNE_TRAINER_IMAGE": "trainer:1",
        "FINETUNE_LOG_FORMAT": "json",
    }.items():
        monkeypatch.setenv(name, value)
    assert main() == 1
    line = written(capsys)[-1]
    assert (line["level"], line["message"]) == ("CRITICAL", "the operator ends")
    assert "Invalid kube-config file" in line["traceback"]


def test_text_names_the_job_before_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "text")
    with logs.about("team", "bot"):
        log.info("Running: attempt %d", 1)
    log.info("this operator leads")
    of_the_job, of_none = capsys.readouterr().err.splitlines()
    assert of_the_job.endswith(" INFO finetune_operator.test: team/bot: Running: attempt 1")
    assert of_none.endswith(" INFO finetune_operator.test: this operator leads")

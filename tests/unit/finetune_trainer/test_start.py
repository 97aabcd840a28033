"""What a rank leaves out of its start and out of its log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from finetune_trainer.__main__ import _leave_out_unused
from finetune_trainer.process.logs import OWN, start_logging
from support.trainer.runs import run_config


def test_bitsandbytes_is_hidden_where_nothing_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # which is undone
    del sys.modules["bitsandbytes"]
    _leave_out_unused(run_config(tmp_path, lora={"quantization": "NF4"}))
    assert "bitsandbytes" not in sys.modules
    _leave_out_unused(run_config(tmp_path))
    assert sys.modules["bitsandbytes"] is None


def test_what_is_imported_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = ModuleType("bitsandbytes")
    monkeypatch.setitem(sys.modules, "bitsandbytes", imported)
    _leave_out_unused(run_config(tmp_path))
    assert sys.modules["bitsandbytes"] is imported


@pytest.fixture
def levels() -> Iterator[None]:
    """Undo what a rank does to the loggers."""
    loggers = [logging.getLogger(n) for n in (None, *OWN, "bitsandbytes.backends.cpu.ops")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_log_has_this_project_s_lines_and_no_url_of_an_http_client(
    levels: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rank: int,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # else it is configured already
    start_logging(rank)
    for name in ("httpx2", "torch.nn.attention.varlen"):
        logging.getLogger(name).info("HTTP Request: GET https://me:canary@host/a?Signature=canary")
    logging.getLogger("bitsandbytes.backends.cpu.ops").warning("no canary kernel")
    logging.getLogger("finetune_trainer.rank").info("own line")
    logging.getLogger("__main__").info("main line")
    logging.getLogger("finetune_trainer.rank").warning("own warning")
    logging.getLogger("urllib3").warning("their warning")
    lines = [line.split(" rank ")[1] for line in capsys.readouterr().err.splitlines()]
    told = ["INFO own line", "INFO main line"] if rank == 0 else []
    assert lines == [f"{rank} {t}" for t in [*told, "WARNING own warning", "WARNING their warning"]]

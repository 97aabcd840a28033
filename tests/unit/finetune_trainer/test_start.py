"""What a rank leaves out of its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.__main__ import _leave_out_unused
from support.trainer_runs import run_config


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    modules: dict[str, Any] = {}
    monkeypatch.setattr("finetune_trainer.__main__.sys.modules", modules)
    return modules


def test_bitsandbytes_is_hidden_where_nothing_needs_it(
    tmp_path: Path, modules: dict[str, Any]
) -> None:
    _leave_out_unused(run_config(tmp_path))
    assert modules == {"bitsandbytes": None}


def test_nf4_finds_it(tmp_path: Path, modules: dict[str, Any]) -> None:
    _leave_out_unused(run_config(tmp_path, lora={"quantization": "NF4"}))
    assert modules == {}


def test_what_is_imported_already_stays(tmp_path: Path, modules: dict[str, Any]) -> None:
    modules["bitsandbytes"] = "imported"
    _leave_out_unused(run_config(tmp_path))
    assert modules == {"bitsandbytes": "imported"}

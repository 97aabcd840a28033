"""What a rank leaves out of its start."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from finetune_trainer.__main__ import _leave_out_unused
from support.trainer_runs import run_config


@pytest.mark.parametrize(("quantization", "hidden"), [("None", True), ("NF4", False)])
def test_bitsandbytes_is_there_for_nf4_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str, hidden: bool
) -> None:
    there = importlib.util.module_from_spec(importlib.util.spec_from_loader("bitsandbytes", None))
    there.__spec__ = importlib.util.spec_from_loader("bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", there)
    _leave_out_unused(run_config(tmp_path, lora={"quantization": quantization}))
    assert (importlib.util.find_spec("bitsandbytes") is None) == hidden

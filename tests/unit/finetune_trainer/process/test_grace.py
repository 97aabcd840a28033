"""How long ranks have after SIGTERM is torchrun's to say, and told where it is less than asked."""

from __future__ import annotations

import logging
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from finetune_trainer.launch import _warn_of_short_grace
from finetune_trainer.process.stopping import Stop, kept_grace
from support.trainer.runs import run_config


@pytest.fixture
def older_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "torch" / "distributed" / "launcher" / "api.py"
    launcher.parent.mkdir(parents=True)
    launcher.write_text("timeout = 30\n")
    torch = ModuleType("torch")
    torch.__spec__ = ModuleSpec("torch", None, origin=str(tmp_path / "torch" / "__init__.py"))
    monkeypatch.setitem(sys.modules, "torch", torch)


def test_the_installed_torchrun_gives_the_whole_period() -> None:
    assert kept_grace(120.0) == 120.0


@pytest.mark.usefixtures("older_torch")
@pytest.mark.parametrize(("asked", "kept"), [(120.0, 30.0), (10.0, 10.0)])
def test_ranks_keep_to_what_an_older_torchrun_gives(
    asked: float, kept: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert kept_grace(asked) == kept
    assert Stop(asked, leave=lambda: None)._grace_seconds == kept
    with caplog.at_level(logging.WARNING):
        _warn_of_short_grace(run_config(tmp_path, graceSeconds=asked).layout)
    told = [message for message in caplog.messages if "ends ranks 30 s after SIGTERM" in message]
    assert len(told) == (asked > kept)

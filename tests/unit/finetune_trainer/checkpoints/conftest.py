"""What the tests of checkpoints share."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_contract.checkpoint import CheckpointRef
from support.trainer.checkpoints import Start, starter


@pytest.fixture
def seen() -> list[CheckpointRef]:
    """Return the list in which a test finds the checkpoints that were told of."""
    return []


@pytest.fixture
def notes() -> list[str | None]:
    """Return the list in which a test finds what failed while training went on."""
    return []


@pytest.fixture
def start(tmp_path: Path, seen: list[CheckpointRef], notes: list[str | None]) -> Start:
    """Return what starts an attempt's keeper of checkpoints."""
    return starter(tmp_path, seen.append, notes.append)

"""Files of one test."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.rewards.trials import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)

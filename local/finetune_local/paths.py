"""Where this package keeps files of the user's: the XDG base directories."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """Return the directory for clusters and runs."""
    return _base("XDG_STATE_HOME", ".local/state")


def cache_dir() -> Path:
    """Return the directory for what can be made again: programs, models."""
    return _base("XDG_CACHE_HOME", ".cache")


def _base(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "finetune"

"""Where this package keeps files of the user's (the XDG base directories), and finds its own."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_REPOSITORY = _PACKAGE.parents[1]


def state_dir() -> Path:
    """Return the directory for clusters and runs."""
    return _base("XDG_STATE_HOME", ".local/state")


def cache_dir() -> Path:
    """Return the directory for what can be made again: programs, models."""
    return _base("XDG_CACHE_HOME", ".cache")


def _base(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback) / "finetune"


def asset(name: str) -> Path:
    """Return a file that lies beside this package when installed, else in the repository."""
    installed = _PACKAGE / "assets" / name
    return installed if installed.exists() else _REPOSITORY / name

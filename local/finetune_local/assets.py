"""The chart and the examples: beside this package when installed, else in the repository."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_REPOSITORY = _PACKAGE.parents[1]


def chart() -> Path:
    """Return the directory of the Helm chart."""
    return _find("charts/finetune-operator")


def quickstart() -> Path:
    """Return the job that the demo applies."""
    return _find("examples/quickstart.yaml")


def _find(name: str) -> Path:
    installed = _PACKAGE / "assets" / name
    return installed if installed.exists() else _REPOSITORY / name

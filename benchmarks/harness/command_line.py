"""The options that every benchmark has."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def command_line(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser that knows `--rounds`, and `--json` for what `save` is given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="write what was measured there")
    return parser


def save(measured: Any, path: Path | None) -> None:
    """Write what was measured as JSON, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(measured, indent=2) + "\n")

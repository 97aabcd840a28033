"""Output: results to stdout, everything else to stderr."""

from __future__ import annotations

from rich.console import Console

OUT = Console(soft_wrap=True)
ERR = Console(stderr=True, soft_wrap=True)

INVALID_FILE = 3
INTERRUPTED = 130


def print_out(text: str) -> None:
    """Print a line of the result, as it is."""
    OUT.print(text, markup=False, highlight=False)


def print_error(text: str) -> None:
    """Print what went wrong and what to do."""
    ERR.print(text, markup=False, highlight=False, style="red")

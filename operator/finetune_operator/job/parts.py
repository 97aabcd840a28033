"""Fields of an object that others write, each of the type that is asked for.

An API server holds the kinds that it knows to their types, but not the objects of every CRD or
aggregated API: what is of another type is as good as not there.
"""

from __future__ import annotations

from typing import Any

from finetune_contract.foreign import LARGEST, printable

LONGEST_WORDS = 1024


def part(of: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object within an object; empty if there is none."""
    value = of.get(name)
    return value if isinstance(value, dict) else {}


def parts(of: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    value = of.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def words(of: dict[str, Any], name: str) -> str:
    """Return a text that people may be shown; empty if there is none."""
    value = of.get(name)
    return printable(value, LONGEST_WORDS) if isinstance(value, str) else ""


def number(of: dict[str, Any], name: str) -> int:
    """Return a whole number, or the nearest that every reader of JSON has alike; 0 if there is
    none."""
    value = of.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return max(-LARGEST, min(LARGEST, value))

"""Names of fields, and what looks like a misspelling of one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from finetune_trainer.data.faults import Kind, RowError


def near(field: str, names: Iterable[Any]) -> str | None:
    """Return the name that looks like a misspelling of a field."""
    return _near(field, tuple(str(name) for name in names))


def missing(value: Mapping[str, Any], field: str, where: str = "") -> RowError:
    """Return the error of a field that is not there, or is there under a misspelt name."""
    subject = f"{where} has" if where else "has"
    found = near(field, value)
    if found is None:
        return RowError(Kind.MISSING_FIELD, f"{subject} no '{field}'")
    return RowError(Kind.MISSPELT_FIELD, f"{subject} no '{field}' (found '{found}')")


@lru_cache(maxsize=4096)  # rows of a file share their keys
def _near(field: str, names: tuple[str, ...]) -> str | None:
    lowered = {name.lower().replace("-", "_"): name for name in names}
    close = difflib.get_close_matches(field, lowered, n=1, cutoff=0.75)
    return lowered[close[0]] if close else None

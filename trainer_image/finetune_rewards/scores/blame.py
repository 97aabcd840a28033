"""What may be said of an exception in a user's function: its class, message and line; no row data.

Messages often quote what they could not handle. What stands in the rows and not in the function's
own source is struck out.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from finetune_rewards.scores.answers import LONGEST_ERROR, one_line
from finetune_rewards.scores.samples import Samples

SHINGLE = 12  # characters; what a message shares with the rows from this length on is theirs
STRUCK = "…"
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Code:
    """A user's source, and the name it is compiled under."""

    file: str
    source: str


def blame(error: BaseException, code: Code, samples: Samples | None = None) -> str:
    """Return `ValueError: message (file.py line 3)`."""
    message = _message(error)[:LONGEST_ERROR]
    if samples is not None:
        message = struck(message, samples, code.source)
    line = _line(error, code.file)
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    place = f" ({code.file} line {line})" if line else ""
    return one_line(said)[: LONGEST_ERROR - len(place)] + place


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return str(error.msg)
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the exception's class may be the user's
        return ""


def _line(error: BaseException, file: str) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == file
    ]
    return lines[-1] if lines else None


def struck(message: str, samples: Samples, source: str = "") -> str:
    """Return a message without what stands in the samples and not in `source`."""
    leaves = set(_leaves([samples.prompts, samples.completions, samples.columns]))
    rows = "\n".join(leaves)
    spans = [(start, start + SHINGLE) for start in range(len(message) - SHINGLE + 1)]
    spans += [found.span(found.lastindex or 0) for found in _QUOTED.finditer(message)]
    words = [found.span() for found in _WORD.finditer(message)]
    theirs = [(a, b) for a, b in spans if message[a:b] in rows]
    theirs += [(a, b) for a, b in words if message[a:b] in leaves]
    hidden = {place for a, b in theirs if message[a:b] not in source for place in range(a, b)}
    kept = "".join("\0" if place in hidden else c for place, c in enumerate(message))
    return re.sub("\0+", STRUCK, kept)


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)

"""What others say, taken in: a pod's Result, a Lease, an Event, a status that any hand can edit.

Any text may come in. What goes on is JSON of bounded depth with numbers that every reader of JSON
has alike, text that can be printed on one line, and times with which can be reckoned. What is none
of these is None or Unreadable, and no other error leaves this module.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:  # workers of rewards, which start without pydantic, read here what they are told
    from pydantic import BaseModel

LARGEST = 2**53 - 1  # of whole numbers, up to which every reader of JSON has the same
DEEPEST = 32  # arrays and objects within each other
LONGEST_TEXT = 4096  # characters of one text in a message
_YEARS = range(1970, 3000)
# A string counts as one token, so that brackets in it do not count; one without an end takes the
# rest, so that no part is looked at twice.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)

M = TypeVar("M", bound="BaseModel")


class Unreadable(ValueError):
    """Text that is not the JSON it should be."""


def parse(text: str | bytes, *, any_number: bool = False) -> Any:
    """Return the value of a JSON text. Raises Unreadable, also for what standard JSON lacks (NaN),
    for nesting beyond DEEPEST, numbers beyond LARGEST or any float, and a name said twice.

    With `any_number` a number is what Python reads, be it NaN, infinite, or beyond any float.
    """
    numbers: dict[str, Any] = {"parse_int": _whole, "parse_float": _finite}
    numbers["parse_constant"] = _refuse
    try:
        text = text.decode() if isinstance(text, bytes) else text
        if text.count("[") + text.count("{") > DEEPEST:
            _check_depth(text)
        return json.loads(text, object_pairs_hook=_object, **({} if any_number else numbers))
    except Unreadable:
        raise
    except ValueError as error:  # it may quote the text
        raise Unreadable(f"is not JSON ({type(error).__name__})") from error


def told(model: type[M], text: str, longest: int) -> M | None:
    """Return the message in a JSON text of at most so many characters; None if it holds none."""
    if len(text) > longest:
        return None
    try:
        return model.model_validate(_printed(parse(text)))
    except ValueError:  # Unreadable and pydantic's ValidationError
        return None


def object_end(text: str, start: int) -> int | None:
    """Return where the JSON object ends that begins at `start`; None if it never does."""
    for depth, end in _levels(text, start):
        if depth == 0:
            return end
        if depth > DEEPEST:
            break
    return None


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text on one line of at most so many characters.

    White space becomes a blank; what a terminal would obey, or no encoding has, is escaped.
    """
    cut = text[: longest + 1]  # whatever comes in, no more than that is looked at
    if not cut.isprintable():
        cut = "".join(_printed_character(character) for character in cut)
    return cut if len(cut) <= longest else cut[: longest - 1] + "…"


def time(text: object) -> datetime | None:
    """Return the time of an RFC 3339 text; None if it is none, or of no year that can be meant."""
    if not isinstance(text, str) or not _RFC_3339.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if found.year in _YEARS else None


def _levels(text: str, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield, after each bracket, how deep it leaves the text and where it stands."""
    depth = 0
    for token in _TOKENS.finditer(text, start):
        kind = token[0][0]
        if kind != '"':
            depth += 1 if kind in "[{" else -1
            yield depth, token.end()


def _check_depth(text: str) -> None:
    if any(depth > DEEPEST for depth, _ in _levels(text)):
        raise Unreadable(f"nests deeper than {DEEPEST}")


def _whole(digits: str) -> int:
    # Longer than that, Python may refuse to read it at all.
    if len(digits) > len(str(-LARGEST)) or abs(int(digits)) > LARGEST:
        raise Unreadable(f"has a whole number beyond {LARGEST}")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Unreadable("has a number that no float holds")
    return value


def _refuse(word: str) -> NoReturn:
    raise Unreadable(f"has {word}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unreadable("has an object that says a name twice")
    return found


def _printed(value: Any) -> Any:
    """Return a value of JSON with its texts printable; names too, of which none may be lost."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printed(one) for one in value]
    if isinstance(value, dict):
        return {printable(name): _printed(one) for name, one in value.items()}
    return value


def _printed_character(character: str) -> str:
    if character.isprintable():
        return character
    if character.isspace():
        return " "
    return character.encode("unicode_escape").decode()

"""What a completion settles on: in tags, in a box, or in the end."""

from __future__ import annotations

import re
from dataclasses import dataclass

from finetune_rewards.reading.numerals import Numeral, numerals, plainly

_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_BOX = re.compile(r"\\f?boxed\s*\{")
_MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|\$([^$\n]+?)\$", re.DOTALL)
_WORDS = re.compile(r"(?<![\\\w])[^\W\d_]{2,}[,;:]? +[^\W\d_]{2,}")
_SPACED = re.compile(r"\s*[-+]?\d{1,3}(?: \d{3})+\s*")  # 1 000 000, and nothing else
_ANOTHER = re.compile(r"[,;](?!\d)|\band\b")
_EMPHASIS = re.compile(r"\A(\*\*|__)((?:(?!\1).)+)\1\Z", re.DOTALL)
_WRAPPED = re.compile(
    r"\A(?:\$\$?(.*?)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\]|`+(.*?)`+|\"(.*)\"|'(.*)')\Z", re.DOTALL
)


@dataclass(frozen=True)
class Final:
    """A piece of a completion, and whether it was marked as the answer: by tags, or by a box."""

    text: str
    marked: bool


def final_of(text: str) -> Final:
    """Return what the last tags hold, else the last closed box, else the text; of tags that hold a
    box, what the box holds."""
    tagged = _TAGGED.findall(text)
    inner = tagged[-1] if tagged else text
    boxed = last_box(inner)
    if boxed is not None:
        return Final(bare(boxed), True)
    return Final(bare(inner), bool(tagged))


def last_box(text: str) -> str | None:
    """Return what the last box holds whose braces close; None if there is none."""
    opens = [found.end() for found in _BOX.finditer(text)]
    closes: dict[int, int] = {}
    stack: list[int] = []
    at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1  # \{ and \} are printed, they group nothing
        elif text[at] == "{":
            stack.append(at + 1)
        elif text[at] == "}" and stack:
            closes[stack.pop()] = at
        at += 1
    for start in reversed(opens):
        if start in closes:
            return text[start : closes[start]]
    return None


def bare(text: str) -> str:
    """Return a piece without the marks around all of it."""
    text = text.strip()
    while True:
        whole = _EMPHASIS.sub(r"\2", text)
        wrapped = _WRAPPED.match(whole)
        inner = next((g for g in wrapped.groups() if g is not None), whole) if wrapped else whole
        inner = inner.strip()
        if inner == text or not inner or "$" in inner:
            return text
        text = inner


def number_of(final: Final) -> Numeral | None:
    """Return the number that a piece says; None for none, and for something made of several."""
    text = plainly(final.text)
    if _SPACED.fullmatch(text):
        text = text.replace(" ", "")
    prose = not final.marked or bool(_WORDS.search(text))
    if not prose:
        _, *sides = re.split(r"=|≈|\\approx|\\simeq", text)
        if any(_ANOTHER.search(side) for side in sides[:-1]):  # x = 3, y = 4
            return None
        text = sides[-1] if sides else text
        text = re.sub(r"\A\s*-\s+", "-", text)
    found = list(numerals(text))
    if not found:
        return None
    if found[-1].value is None:
        return _equal_to_the_last(found, text)
    if prose:
        return found[-1]
    return found[-1] if all(one.equals(found[-1]) for one in found) else None


def _equal_to_the_last(found: list[Numeral], text: str) -> Numeral | None:
    """Return the number that what a text ends with is said to be: 42 of `42 = 6 * 7`."""
    at = max((at for at, one in enumerate(found) if one.value is not None), default=-1)
    if at < 0 or not re.fullmatch(r"\s*=[\s(-]*", text[found[at].end : found[at + 1].start]):
        return None
    return found[at]


def number_in(column: str) -> Numeral | None:
    """Return the number that a column's value is; None where it is anything else."""
    text = plainly(column)
    found = list(numerals(text))
    if len(found) != 1 or found[0].value is None:
        return None
    [one] = found
    assert one.value is not None
    a_pair = re.fullmatch(r"\d+,\d+", text[one.start : one.end]) and one.value.denominator > 1
    elsewhere = re.search(r"\d", text[: one.start] + " " + text[one.end :])
    return None if a_pair or elsewhere else one


def math_of(final: Final) -> str:
    """Return the piece that is to be read as mathematics: all of a marked one or of one without
    prose, else the last formula, else the last number."""
    if final.marked or not (_WORDS.search(final.text) or "\n" in final.text):
        return final.text
    formulas = [next(g for g in m.groups() if g) for m in _MATH.finditer(final.text)]
    formulas = [one for one in formulas if not _WORDS.search(one)]
    if formulas:
        return str(formulas[-1]).strip()
    text = plainly(final.text)
    found = list(numerals(text))
    return text[found[-1].start : found[-1].end] if found else ""

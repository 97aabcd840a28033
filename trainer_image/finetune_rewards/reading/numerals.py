"""Numbers as people and models write them, in any script, and whether one stands for itself.

`17 + 25` holds two numbers and is none: an operand is not an answer. A digit of a name (`H2O`,
`x_1`), of a date or of a time is passed over.
"""

# ruff: noqa: RUF001 - signs that look alike are what this is about

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_LONGEST = 400  # characters; and the largest power of ten
# Letters of scripts that put no space between a word and a number: Thai to Myanmar, Khmer, kana,
# Han, Hangul.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005\u3007\u3040-\u30ff\u3130-\u318f"
    "\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = rf"[^\W\d_{UNSPACED}]"
_PLAIN = (
    r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?![\d])(?:\.\d+)?"  # 1,234,567.8 and 12,34,567
    r"|\d{1,3}(?:[\u00a0\u2009\u202f'’]\d{3})+(?:[.,]\d+)?"  # 1 234 567
    r"|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}"  # 1.234,5
    r"|\d+,\d+|\d+(?:\.\d+)?|\.\d+)"
)
_INT = r"-?\d{1,200}"
_NUMBER = re.compile(
    rf"(?P<chain>\d+(?:[.:/\-]\d+){{2,}}|\d+:\d+(?:[:.]\d+)*)"
    rf"|(?:(?P<mixed>\d{{1,9}})\s*)?\\[dtc]?frac\s*\{{\s*(?P<over>{_INT})\s*\}}\s*"
    rf"\{{\s*(?P<under>{_INT})\s*\}}"
    rf"|\\[dtc]?frac\s*(?P<over1>\d)\s*(?P<under1>\d)"
    rf"|(?P<mixed2>\d{{1,9}})[ +]?(?P<vulgar>[¼-¾⅐-⅞])|(?P<vulgar1>[¼-¾⅐-⅞])"
    rf"|(?:(?P<mixed3>\d{{1,9}}) )?(?P<over2>\d{{1,200}})\s?[/⁄]\s?(?P<under2>\d{{1,200}})"
    rf"(?![\d.,]*\d)"
    rf"|(?:(?P<times>{_PLAIN})\s*(?:\\times|\\cdot|[×·*xX])\s*)?10\s*(?:\^|\*\*)\s*"
    rf"\{{?\s*(?P<power>[-+]?\d{{1,6}})\s*\}}?"
    rf"|(?P<plain>{_PLAIN})(?:[eE](?P<e>[-+]?\d{{1,6}})(?!\w))?"
)
_MAGNITUDES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "k": 3, "bn": 9,
    "百": 2, "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8, "백": 2, "천": 3, "만": 4, "억": 8,
}  # fmt: skip
_MAGNITUDE = re.compile(
    r"(?P<word>k(?![^\W\d_])|bn\b|[百千万萬亿億백천만억](?P<more>[万萬亿億만억])?(?!\d)"
    r"|\s(?:hundred|thousand|million|billion|trillion)\b|\s(?=[万萬亿億])[万萬亿億])",
)
_UNITS = (
    "mm|cm|dm|m|km|in|ft|yd|mi|nm|pm|um|mg|g|kg|t|lb|lbs|oz|ms|ns|s|sec|secs|min|mins|h|hr|hrs|ml|"
    "mL|cl|dl|l|L|mW|W|kW|MW|kWh|V|mV|A|mA|J|kJ|N|kN|Pa|kPa|MPa|Hz|kHz|MHz|GHz|KB|kB|MB|GB|TB|"
    "eV|C|F|rad|deg|mol|km/h|m/s|mph|kph|USD|EUR|GBP|CNY|RMB|JPY|INR|cents?|dollars?|euros?|"
    "units?|years?|days?|hours?|minutes?|seconds?|pcs|px|pt|лет|руб|км|см|кг|г|м"
)
_UNIT = re.compile(rf"(?:{_UNITS})(?![^\W_{UNSPACED}])")
_CURRENCY = re.compile(r"(?:US|CA|AU|NT|HK)$|(?:USD|EUR|GBP|CNY|RMB|JPY|INR|Rs\.?|CHF)$")
# What makes a number before or behind it a part of something else.
_BEFORE = re.compile(
    r"(?:[\w)}\]]\s*(?:[+/×÷·^<>≤≥≠±%]|\\(?:times|cdot|div|pm|mp|l[et]q?|g[et]q?|neq?)\b)"
    r"|[\d)}]\s*\*{1,2}|[\d)}\]]\s*[-−]|\b[a-zA-Z]\s*[-−]|\b[a-z]\s*\*"
    r"|√|±|\\pm\s*|\\(?:sqrt|d?frac|tfrac|log|ln|lg|sin|cos|tan|exp|binom|p?mod|in|cup|cap|max|min)"
    r"(?:\[[^\]]*\])?(?:_\{?\w+\}?)?(?:\{[^{}]*\})?\s*[({]?|\bmod|\}\s*\{|[≤≥≠])\s*[({]?\s*\Z"
)
_BEHIND = re.compile(
    r"\s*(?:[+×÷·^]|\*\*?(?=[\s]*[\w(\\])|[-−/](?=\s*[\d(\\]))\s*[\w(\\{√-]"
    r"|\s*\\(?:times|cdot|div|sqrt|pi|theta|sin|cos|tan|log|ln|pm|[gl]eq?)\b|\s*(?:[√π>≤≥²³⁰-⁹]|<(?!/))|\s*[+×÷]\s*\Z|!(?!\s|$)"
)
_POWER = re.compile(r"[\d)}\]]\s*[_^]\{?-?\Z")
_NAMED = re.compile(rf"(?:{_LETTER}|_|{_LETTER}{{2,}}-)\Z")  # H2, x_2, GPT-4
_DECADE = re.compile(r"(?:1\d|20)\d0s\b")
_PASSED = re.compile(r"(?:[_^]\{?-?|[A-Za-z]\()\Z")


@dataclass(frozen=True)
class Numeral:
    """A number in a text. `value` is None for what is written as one and part of something else;
    `exact` tells whether it is written as a fraction, which no decimal may equal."""

    start: int
    end: int
    value: Fraction | None
    percent: bool = False
    exact: bool = False
    decimals: int = 0

    def equals(self, other: Numeral) -> bool:
        """Tell whether two are the same number, as far as their decimals say it."""
        if self.value is None or other.value is None:
            return False
        scale = 1 if self.percent == other.percent else 100
        mine, theirs = self.value, other.value
        return _near(mine, theirs, self, other) or (
            scale != 1
            and _near(
                mine / (scale if self.percent else 1),
                theirs / (scale if other.percent else 1),
                self,
                other,
            )
        )


def _near(mine: Fraction, theirs: Fraction, one: Numeral, other: Numeral) -> bool:
    if mine == theirs:
        return True
    if one.exact != other.exact:  # 1/3 is 0.3333
        decimals = max(one.decimals, other.decimals)
        return decimals >= 4 and abs(mine - theirs) <= Fraction(1, 2 * 10**decimals)
    if one.exact or not (one.decimals and other.decimals):
        return False
    return abs(mine - theirs) <= max(abs(mine), abs(theirs)) / 10**9  # a float's own error


def plainly(text: str) -> str:
    """Return a text with its digits, signs and spaces as ASCII, its tags and emphasis as spaces."""
    text = re.sub(r"(?<=[\uff10-\uff19])\uff0c(?=[\uff10-\uff19])", ",", text)
    text = "".join(map(_ascii, text))
    text = re.sub(r"</?[A-Za-z][\w:.-]*>", " ", text)
    text = re.sub(r"\\(?:text|mathrm|mathbf)\w*\s*\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b", "°", text)
    text = text.replace(r"\!", "").replace(r"\,", "").replace("{,}", ",").replace(r"\ ", " ")
    text = re.sub(r"(\*\*|__)(?=\S)(.{1,400}?)(?<=\S)\1(?!\d)", r" \2 ", text)
    text = re.sub(r"(?<!\w)_(?=[^\s_])([^_\n]+)_(?!\w)", r" \1 ", text)
    return re.sub(r"(?<![\w*)}])\*(?=[^\s*])([^*\n]+)\*(?![\w*])", r" \1 ", text)


def _ascii(char: str) -> str:
    if char.isascii():
        return char
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if char in "−﹣－–":
        return "-"
    if "\uff01" <= char <= "\uff5e" and char != "，":
        return chr(ord(char) - 0xFEE0)
    return {"，": "，", "٫": ".", "٬": ",", "￥": "¥", "\u3000": " "}.get(char, char)


def numerals(text: str) -> Iterator[Numeral]:
    """Yield the numbers of a text that went through `plainly`, those passed over left out."""
    for found in _NUMBER.finditer(text):
        if found.end() - found.start() > _LONGEST:
            continue
        one = _numeral(text, found)
        if one is not None:
            yield one


def _numeral(text: str, found: re.Match[str]) -> Numeral | None:
    start, end = found.span()
    before, behind = text[max(0, start - 64) : start], text[end : end + 64]
    if found["chain"]:
        return None
    if _PASSED.search(before):
        return Numeral(start, end, None) if _POWER.search(before) else None
    negative, before = _signed(before)
    if _NAMED.search(before) and not _CURRENCY.search(before):
        return None
    power, length = _magnitude(behind)
    behind = behind[length:]
    if not length and re.match(rf"{_LETTER}|_", behind):
        unit = _UNIT.match(behind)
        if unit is None or _DECADE.match(text, start):
            return None
        behind = behind[unit.end() :]
    value, exact, decimals = _value(found)
    if value is None or _BEFORE.search(before) or _BEHIND.match(behind):
        return Numeral(start, end, None)
    percent = bool(re.match(r"\s*(?:\\?%|percent\b)", behind))
    value = value * 10**power * (-1 if negative else 1)
    return Numeral(start, end + length, value, percent, exact, decimals)


def _signed(before: str) -> tuple[bool, str]:
    """Return whether what stands before a number makes it negative, and what stands before that."""
    if before.endswith(("-", "+")) and not re.search(r"[\w)}\]][-+]\Z", _spaced(before)):
        return before[-1] == "-", before[:-1]
    for pattern, kept in ((r"=\s*-\s*\Z", 1), (r"(?<![\w)}\]])-\s?(?:\\?\$|[€£¥₹])\Z", 0)):
        if found := re.search(pattern, before):
            return True, before[: found.start() + kept]
    return False, before


def _magnitude(behind: str) -> tuple[int, int]:
    """Return the power of ten that stands behind a number, and how long it is written."""
    found = _MAGNITUDE.match(behind)
    if found is None:
        return 0, 0
    word = found["word"].strip()
    return sum(_MAGNITUDES[part] for part in (word if found["more"] else [word])), found.end()


def _spaced(before: str) -> str:
    """Return what stands before a sign, letters of unspaced scripts as spaces."""
    return re.sub(f"[{UNSPACED}]", " ", before)


def _value(found: re.Match[str]) -> tuple[Fraction | None, bool, int]:
    """Return a number's value, whether it is a fraction, and its decimals."""
    group = found.groupdict()
    for over, under, mixed in (
        ("over", "under", "mixed"), ("over1", "under1", ""), ("over2", "under2", "mixed3")
    ):  # fmt: skip
        if group[over] is not None:
            if not int(group[under]):
                return None, True, 0
            whole = int(group[mixed] or 0) if mixed else 0
            return whole + Fraction(int(group[over]), int(group[under])), True, 0
    if vulgar := group["vulgar"] or group["vulgar1"]:
        part = Fraction(unicodedata.numeric(vulgar)).limit_denominator(10)
        return int(group["mixed2"] or 0) + part, True, 0
    text = group["plain"] or group["times"] or "1"
    power = int(group["e"] or group["power"] or 0)
    if abs(power) > _LONGEST:
        return None, False, 0
    digits = _digits(text)
    _, _, decimal = digits.partition(".")
    return Fraction(digits) * Fraction(10) ** power, False, max(len(decimal) - power, 0)


def _digits(text: str) -> str:
    """Return a number with a point for its decimals and nothing between its thousands."""
    text = re.sub(r"[\u00a0\u2009\u202f'’]", "", text)
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", text) or re.fullmatch(r"\d+(?:\.\d{3}){2,}", text):
        return text.replace(".", "").replace(",", ".")
    if re.fullmatch(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?", text):
        return text.replace(",", "")
    return text.replace(",", ".")

"""What others say is taken in bounded, or not at all; nothing that they say is an error of ours."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.foreign import (
    DEEPEST,
    LARGEST,
    Unreadable,
    object_end,
    parse,
    printable,
    time,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_any_json_that_others_have_too_is_read(value: Any) -> None:
    text = json.dumps(value)
    assert parse(text) == value
    assert parse(text.encode()) == value


@given(st.text(alphabet='[]{}":,\\\\ue1-.0ntr \n\ud800', max_size=200) | st.text())
def test_any_other_text_is_unreadable_and_no_other_error(text: str) -> None:
    with suppress(Unreadable):
        parse(text)


def nested(levels: int, kind: str) -> str:
    before, after = {"list": ("[", "]"), "object": ('{"a":', "}")}[kind]
    return before * levels + "1" + after * levels


@pytest.mark.parametrize("kind", ["list", "object"])
def test_depth_is_bounded(kind: str) -> None:
    parse(nested(DEEPEST, kind))
    for levels in (DEEPEST + 1, 100_000):
        with pytest.raises(Unreadable, match="nests deeper than 32"):
            parse(nested(levels, kind))


def test_brackets_in_texts_are_not_depth() -> None:
    value = ["[{" * 100, '"\\[' * 100, {"[" * 100: []}]
    assert parse(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        str(2**53),
        str(-(2**53)),
        "9" * 5000,
        "1e999",
        "-1e999",
        "NaN",
        "Infinity",
        "-Infinity",
        '{"a": 1, "a": 2}',
        "",
        "\ufeff1",
    ],
)
def test_what_readers_of_json_differ_about_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(text)


def test_any_number_is_taken_where_it_is_judged_later() -> None:
    found = parse("[NaN, -1e999, 1" + "0" * 400 + "]", any_number=True)
    assert str(found[0]) == "nan"
    assert found[1:] == [float("-inf"), 10**400]
    for text in ("9" * 5000, nested(DEEPEST + 1, "list"), '{"a": 1, "a": 2}'):
        with pytest.raises(Unreadable):
            parse(text, any_number=True)


def test_an_error_does_not_quote_what_was_said() -> None:
    with pytest.raises(Unreadable) as caught:
        parse("[secret")
    assert str(caught.value) == "is not JSON (JSONDecodeError)"


def test_bytes_that_are_no_text_are_unreadable() -> None:
    with pytest.raises(Unreadable):
        parse(b'"\xff"')


def test_the_largest_numbers_are_read() -> None:
    assert parse(f"[{LARGEST}, {-LARGEST}, 1e30]") == [LARGEST, -LARGEST, 1e30]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('{"a": {}} {}', 9),
        ('{"}": "\\\\"} x', 11),
        ('{"a": [}', None),
        ('{"a', None),
        ("{" * 33 + "}" * 33, None),
        ("{" * 32 + "}" * 32, 64),
    ],
)
def test_where_an_object_ends(text: str, end: int | None) -> None:
    assert object_end(text, 0) == end


@given(st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"])), st.integers(1, 30))
def test_any_text_becomes_printable_and_short(text: str, longest: int) -> None:
    shown = printable(text, longest)
    assert shown.isprintable()
    assert len(shown) <= longest
    shown.encode()
    if text.isprintable() and len(text) <= longest:
        assert shown == text


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("a\r\n\tb\x1b[2J\u202ec\ud800\u2028") == r"a   b\x1b[2J\u202ec\ud800 "
    assert printable("grüße 😀") == "grüße 😀"
    assert (printable("four", 4), printable("fives", 4)) == ("four", "fiv…")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-03-01T12:00:00Z", 0),
        ("2026-03-01t12:00:00z", 0),
        ("2026-03-01T12:00:05.25Z", 5.25),
        ("2026-03-01T12:00:00.123456789Z", 0.123456),
        ("2026-03-01T13:30:00+01:30", 0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    found = time(text)
    assert found is not None
    assert (found - datetime(2026, 3, 1, 12, tzinfo=UTC)).total_seconds() == seconds


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        7,
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "1969-12-31T23:59:59Z",
        "3000-01-01T00:00:00Z",
        "2026-03-01T12:00:00",
        "2026-03-01",
        "20260301T120000Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T12:00:60Z",
        "2026-02-30T12:00:00Z",
        "2026-03-01T12:00:00Z\n",
        "\uff12026-03-01T12:00:00Z",
    ],
)
def test_what_is_no_time(text: object) -> None:
    assert time(text) is None


@given(st.text(alphabet="0123456789-:.+TZ", max_size=30))
def test_no_text_breaks_the_reading_of_times(text: str) -> None:
    found = time(text)
    assert found is None or 1970 <= found.year < 3000

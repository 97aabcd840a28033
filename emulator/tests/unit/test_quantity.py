"""Quantities keep their value and reach one form."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_emulator.quantity import canonical, canonical_amounts, parse

SUFFIXES = st.sampled_from(["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"])
WHOLE = st.tuples(st.integers(-10_000, 10_000).map(str), SUFFIXES).map("".join)
PARTS = st.tuples(st.integers(0, 999).map(lambda n: f"{n / 8}"), SUFFIXES).map("".join)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        (4, "4"),
        ("1.5Gi", "1610612736"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("3M", "3000000"),
        ("1e3", "1000"),
        ("100u", "0.0001"),
        ("2Ti", str(2 * 1024**4)),
    ],
)
def test_values(text: str | int, value: str) -> None:
    assert parse(text) == Decimal(value)


@given(st.one_of(WHOLE, PARTS))
def test_the_value_stays(written: str) -> None:
    assert parse(canonical(written)) == parse(written)


@given(st.one_of(WHOLE, PARTS))
def test_the_form_is_final(written: str) -> None:
    """A binary quantity that needs bytes loses its suffix, and is decimal from then on."""
    once = canonical(written)
    final = canonical(once)
    assert canonical(final) == final
    assert final == once or written.endswith("i")
    assert "." not in once or Decimal(once.rstrip("numkMGTPEi")) % 1 != 0


FORMS = {
    "1000m": "1",
    "0.5": "500m",
    "1024Mi": "1Gi",
    "512.5Ki": "524800",
    "62.5Ki": "64000",
    "0.5Ki": "512",
    "3000k": "3M",
    "0Gi": "0",
    2: "2",
    2.5: "2500m",
    "1e3": "1e3",
    "much": "much",
}


@pytest.mark.parametrize("written", FORMS)
def test_forms(written: str | float) -> None:
    assert canonical(written) == FORMS[written]


def test_a_containers_amounts_are_rewritten() -> None:
    resources = {"limits": {"cpu": "1000m"}, "requests": {"cpu": "0.5"}}
    canonical_amounts(resources)
    assert resources == {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
    canonical_amounts(empty := {})
    assert empty == {}

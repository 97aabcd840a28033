"""A block is filled by name; a field that nobody gives is an error, not a default."""

import pytest

from finetune_contract.model import Message, filled


class Inner(Message):
    size: float = 1.0


class Asked(Message):
    inner: Inner | None = None
    several: tuple[Inner, ...] | None = None
    words: tuple[str, ...] = ()
    secret: str = "s"


class Wide(Inner):
    more: int = 3


class Told(Message):
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    words: tuple[str, ...] = ()
    name: str = "unnamed"


def test_blocks_within_become_the_targets_own() -> None:
    asked = Asked(inner=Wide(size=2), several=(Wide(size=3), Inner()), words=("a",))
    told = filled(Told, asked, name="n")
    assert told == Told(
        inner=Inner(size=2), several=(Inner(size=3), Inner()), words=("a",), name="n"
    )


def test_what_is_empty_is_the_targets_default() -> None:
    assert filled(Told, Asked(), name="n") == Told(name="n")


def test_a_field_without_a_source_is_an_error_though_it_has_a_default() -> None:
    with pytest.raises(AttributeError, match="name"):
        filled(Told, Asked())

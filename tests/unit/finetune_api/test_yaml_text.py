"""YAML means here what it means to kubectl."""

import pytest
import yaml

from finetune_api.yaml_text import dump, load_documents


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1.5", 1.5),
        ("3", 3),
        ("'2e-4'", "2e-4"),
        ("2026-01-01", "2026-01-01"),
        ("yes", True),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    (loaded,) = load_documents(text)
    assert loaded == value
    assert type(loaded) is type(value)


def test_strings_that_look_like_numbers_are_quoted() -> None:
    assert load_documents(dump({"a": "2e-4", "b": "1"})) == [{"a": "2e-4", "b": "1"}]
    assert dump("2e-4").startswith("'2e-4'")


def test_a_duplicate_key_is_refused_with_its_line() -> None:
    with pytest.raises(yaml.YAMLError, match=r"duplicate key 'a'[\s\S]*line 2"):
        load_documents("a: 1\na: 2\n")


def test_empty_documents_are_passed_over() -> None:
    assert load_documents("---\n---\na: 1\n---\n") == [{"a": 1}]

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
        ("=", "="),
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


def test_a_mapping_may_take_over_another() -> None:
    text = "a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\nc: {z: *a, <<: [*a]}\n"
    a = {"x": 1, "y": 1}
    assert load_documents(text) == [{"a": a, "b": {"x": 1, "y": 2}, "c": {**a, "z": a}}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: .inf", "'.inf' is no float that JSON has"),
        ("a: 1e400", "'1e400' is no float that JSON has"),
        (f"a: {'9' * 5000}", "9' is no int that JSON has"),
        ("a: !!int ''", "'' is no int that JSON has"),
        ("a: !!bool x", "'x' is no bool that JSON has"),
        ("a: !!timestamp x", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: &a [*a]", "an alias stands for what it is a part of"),
        ("[" * 4000, "it nests deeper than 100"),
        ("[" * 101 + "]" * 101, "it nests deeper than 100"),
    ],
)
def test_what_has_no_form_in_json_is_refused(text: str, says: str) -> None:
    with pytest.raises(yaml.YAMLError) as refused:
        load_documents(text)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 400


def test_as_deep_as_is_read() -> None:
    assert load_documents("[" * 100 + "]" * 100)


def test_aliases_stand_for_bounded_values_at_bounded_depth() -> None:
    many = "\n".join(f"- &{i + 1} [{','.join([f'*{i}'] * 9)}]" for i in range(6))
    with pytest.raises(yaml.YAMLError, match="it stands for more than 100000 values"):
        load_documents(f"- &0 x\n{many}")
    deep = "\n".join(f"- &{i + 1} [*{i}]" for i in range(101))
    with pytest.raises(yaml.YAMLError, match="it nests deeper than 100"):
        load_documents(f"- &0 x\n{deep}")

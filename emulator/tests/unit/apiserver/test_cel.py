"""CEL as trees: precedence, and what an expression costs at most."""

from __future__ import annotations

import math
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_emulator.apiserver.kinds.cel_cost import UndefinedField, cardinality, estimate
from kube_emulator.apiserver.kinds.cel_syntax import Node, parse


def run(node: Node) -> Any:
    """Evaluate a tree of literals and operators, to compare it with the library."""
    if node.kind == "literal":
        return node.value
    args = [run(a) for a in node.args]
    match node.value, args:
        case "?:", [condition, yes, no]:
            return yes if condition else no
        case "-", [x]:
            return -x
        case "!", [x]:
            return not x
    first, second = args
    operations = {
        "+": lambda: first + second,
        "-": lambda: first - second,
        "*": lambda: first * second,
        "<": lambda: first < second,
        "==": lambda: first == second,
        "&&": lambda: first and second,
        "||": lambda: first or second,
    }
    return operations[str(node.value)]()


NUMBERS = st.integers(0, 9).map(str)
SUMS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-({})".format),
    ),
    max_leaves=8,
)
TESTS = st.tuples(SUMS, st.sampled_from(["<", "=="]), SUMS).map(" ".join)
RULES = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(" ".join),
        inner.map("!({})".format),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]}) ? ({t[1]}) : ({t[2]})"),
    ),
    max_leaves=5,
)


@given(RULES)
def test_trees_mean_what_the_library_computes(text: str) -> None:
    assert run(parse(text)) == cel.evaluate(text)


def test_members_calls_and_literals() -> None:
    node = parse("self.a['b.c'].all(x, x.size() in [1, 2] && has(self.d)) ? {'k': null} : r\"s\"")
    assert (node.kind, node.value) == ("call", "?:")
    condition, mapping, text = node.args
    assert (condition.value, [a.kind for a in condition.args]) == ("all", ["name", "call"])
    assert condition.target == Node(
        "index",
        target=Node("select", "a", Node("name", "self")),
        args=(Node("literal", "b.c"),),
    )
    assert mapping == Node("map", args=(Node("literal", "k"), Node("literal")))
    assert text == Node("literal", "s")
    assert parse("1.5").value == 1.5
    assert parse("7u").value == 7
    assert parse("true").value is True


@pytest.mark.parametrize(
    "text", ["", "a ==", "a b", "(a", "[1", "a ? b", "a.all(", "#", "{1}", "'"]
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unexpected"):
        parse(text)


SHORT = {"type": "string", "maxLength": 10}
LIST = {"type": "array", "maxItems": 7, "items": SHORT}
SELF = {
    "type": "object",
    "properties": {
        "short": SHORT,
        "long": {"type": "string"},
        "list": LIST,
        "word": {"type": "string", "enum": ["a", "abc"]},
        "map": {"type": "object", "maxProperties": 3, "additionalProperties": SHORT},
        "any": {"x-kubernetes-preserve-unknown-fields": True},
    },
}


def cost(text: str) -> float:
    return estimate(parse(text), {"self": SELF}).cost


def size(text: str) -> float:
    return estimate(parse(text), {"self": SELF}).size


def test_sizes_come_from_bounds_or_from_what_a_request_holds() -> None:
    assert size("self.short") == 40
    assert size("self.word") == 3
    assert size("self.long") == 3 * 1024 * 1024 - 2
    assert size("self.list") == 7
    assert size("self.map") == 3
    assert size("self.list[0]") == size("self.map['a']") == 40
    assert size("self.short + 'abc'") == 43
    assert size("string(self.short)") == 40
    assert size("string(1)") == math.inf
    assert size("self.list.map(x, x)") == size("self.list.filter(x, true)") == 7


def test_unbounded_lists_hold_what_fits() -> None:
    most = 3 * 1024 * 1024
    assert cardinality({"items": {"type": "integer"}}) == most // 2
    assert cardinality({"items": {"type": "string"}}) == most // 3
    needy = {"type": "object", "required": ["ab"], "properties": {"ab": {"type": "boolean"}}}
    assert cardinality({"items": needy}) == most // (2 + 2 + 4 + 4 + 1)
    assert cardinality({"additionalProperties": {"type": "boolean"}}) == most // 8


def test_loops_multiply_and_strings_cost_by_length() -> None:
    once = cost("self.list.all(x, true)")
    assert cost("self.list.all(x, x == 'b')") > once
    nested = cost("self.list.all(x, self.list.all(y, true))")
    assert nested > 6 * once
    assert cost("self.long.matches('a')") > 1000 * cost("self.short.matches('a')")
    assert cost("self.long == self.long") > 1000 * cost("self.long == 'a'")
    assert cost("self.long.contains(self.long)") > 1000 * cost("self.long.contains('a')")
    assert cost("self.long.startsWith(self.long)") > 1000 * cost("self.long.startsWith('a')")
    assert cost("'a' in self.list") == 2 + 7
    assert cost("self.list.map(x, x)") == 2 + 7 * (3 + 1) + 1 + 7 * 10
    assert cost("self.list.filter(x, true)") == 2 + 7 * 3 + 1 + 7 * 10
    assert cost("true ? self.short : self.long") == 2
    assert cost("self.long.split(',').all(x, true)") > 1_000_000


@pytest.mark.parametrize("text", ["self.none", "self.list.all(x, self.none)", "has(self.none)"])
def test_fields_that_do_not_exist(text: str) -> None:
    with pytest.raises(UndefinedField, match="none"):
        cost(text)


@pytest.mark.parametrize("text", ["self.any.x.y", "self.map.x", "unknown.x", "self.list[0].size()"])
def test_what_is_not_known_is_not_refused(text: str) -> None:
    assert cost(text) > 0

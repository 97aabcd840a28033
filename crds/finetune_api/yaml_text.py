"""Read and write YAML as Kubernetes does.

PyYAML follows YAML 1.1, in which `2e-4` is a string; kubectl follows the newer rule, in which it is
a number. A file must mean the same to both. What has no form in JSON, to which kubectl turns it, is
refused, and so is what grows by its aliases beyond any use.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml
from yaml.constructor import ConstructorError

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_TAG = "tag:yaml.org,2002:"
_OF_JSON = {f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
_AS_TEXT = (f"{_TAG}timestamp", f"{_TAG}value")
_DEEPEST = 100
_MOST_NODES = 100_000  # with every alias written out


class _Loader(yaml.SafeLoader):
    def get_node(self) -> yaml.Node | None:
        try:
            node = super().get_node()
        except RecursionError:
            raise yaml.MarkedYAMLError(problem=f"it nests deeper than {_DEEPEST}") from None
        if node is not None:
            _measured(node, (), {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):  # PyYAML's own, of what a tag misnames
            value = math.nan
        if isinstance(value, float) and not math.isfinite(value):
            kind = node.tag.removeprefix(_TAG)
            _refuse(node, f"{str(node.value)[:40]!r} is no {kind} that JSON has")
        return value


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _AS_TEXT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag in _OF_JSON
}


def load_documents(text: str) -> list[Any]:
    """Return every non-empty document. Raises yaml.YAMLError with line and column."""
    return [d for d in yaml.load_all(text, Loader=_Loader) if d is not None]


@dataclass(frozen=True)
class Place:
    """Where a value stands in a text, from 1, and what is written there, if it is one word."""

    line: int
    column: int
    written: str | None = None


def places(text: str) -> list[dict[str, Place]]:
    """Return where the values of each non-empty document stand, by their dotted paths.

    Raises yaml.YAMLError as `load_documents` does.
    """
    nodes = list(yaml.compose_all(text, Loader=_Loader))
    found = []
    for node in nodes:
        if node is not None and node.tag != f"{_TAG}null":
            found.append({"": _place(node, node)})
            _find(node, "", found[-1])
    return found


def _find(node: yaml.Node, path: str, found: dict[str, Place]) -> None:
    if isinstance(node, yaml.SequenceNode):
        parts = [(item, item, f"{path}[{at}]") for at, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        parts = [
            (key, value, f"{path}.{key.value}" if path else str(key.value))
            for key, value in node.value
        ]
    else:
        return
    for at, value, where in parts:
        found[where] = _place(at, value)
        _find(value, where, found)


def _place(at: yaml.Node, value: yaml.Node) -> Place:
    written = str(value.value) if isinstance(value, yaml.ScalarNode) else None
    return Place(at.start_mark.line + 1, at.start_mark.column + 1, written)


def dump(value: Any) -> str:
    """Return YAML in insertion order, strings that look like numbers quoted."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


_Measure = tuple[int, int]  # nodes that one stands for, and how deep they nest


def _measured(
    node: yaml.Node, above: tuple[yaml.Node, ...], known: dict[int, _Measure]
) -> _Measure:
    """Return a node's measure. Raises ConstructorError for what no document needs."""
    if any(one is node for one in above):
        _refuse(node, "an alias stands for what it is a part of")
    if len(above) >= _DEEPEST:
        _refuse(node, f"it nests deeper than {_DEEPEST}")
    if id(node) not in known:
        inside = [_measured(one, (*above, node), known) for one in _parts(node)]
        count = 1 + sum(count for count, _ in inside)
        known[id(node)] = count, 1 + max((depth for _, depth in inside), default=0)
    count, depth = known[id(node)]
    if len(above) + depth > _DEEPEST:
        _refuse(node, f"it nests deeper than {_DEEPEST}")
    if count > _MOST_NODES:
        _refuse(node, f"it stands for more than {_MOST_NODES} values")
    return count, depth


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes within a node. Raises ConstructorError for a key that is there twice."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    keys = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
            if (key.tag, key.value) in keys:
                _refuse(key, f"duplicate key {key.value!r}")
            keys.add((key.tag, key.value))
    return [part for pair in node.value for part in pair]


def _refuse(node: yaml.Node, problem: str) -> NoReturn:
    raise ConstructorError(None, None, problem, node.start_mark)

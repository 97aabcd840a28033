"""CEL expressions as trees, for the checks a server makes before it accepts a rule.

Rules are run by a library; it shows no tree, and what a rule may cost can only be read off one.
Follows the grammar of the CEL specification, without message construction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>\d+\.\d+|\d+u?)
    | (?P<string>[rRbB]?(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))
    | (?P<name>[A-Za-z_]\w*)
    | (?P<mark>\|\||&&|[=!<>]=|[-+*/%!<>?:.,()\[\]{}])
    )""",
    re.VERBOSE,
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)


@dataclass(frozen=True)
class Node:
    """One node: `kind` is literal, name, select, index, call, list, map; `args` are its parts.

    A call's `value` is the function or operator; `target` is what a method is called on.
    """

    kind: str
    value: Any = None
    target: Node | None = None
    args: tuple[Node, ...] = ()


def parse(expression: str) -> Node:
    """Parse one expression. Raises ValueError."""
    parser = _Parser(_tokens(expression))
    node = parser.ternary()
    parser.expect("")
    return node


def _tokens(text: str) -> list[tuple[str, str]]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise ValueError(f"unexpected character at {place}: {text[place : place + 10]!r}")
        found.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return [*found, ("end", "")]


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0

    def _next(self) -> tuple[str, str]:
        return self._tokens[self._place]

    def _take(self, *marks: str) -> str | None:
        kind, text = self._next()
        if text in marks and kind != "string":
            self._place += 1
            return text
        return None

    def expect(self, mark: str) -> None:
        kind, text = self._next()
        if text != mark or kind == "string":
            raise ValueError(f"expected {mark or 'the end'!r}, found {text or 'the end'!r}")
        self._place += 1

    def ternary(self) -> Node:
        condition = self._binary(0)
        if not self._take("?"):
            return condition
        yes = self._binary(0)
        self.expect(":")
        return Node("call", "?:", args=(condition, yes, self.ternary()))

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while operator := self._take(*_LEVELS[level]):
            left = Node("call", operator, args=(left, self._binary(level + 1)))
        return left

    def _unary(self) -> Node:
        if operator := self._take("!", "-"):
            return Node("call", operator, args=(self._unary(),))
        return self._member(self._primary())

    def _member(self, node: Node) -> Node:
        while True:
            if self._take("."):
                _, name = self._next()
                self._place += 1
                if self._take("("):
                    node = Node("call", name, node, self._list(")"))
                else:
                    node = Node("select", name, node)
            elif self._take("["):
                index = self.ternary()
                self.expect("]")
                node = Node("index", None, node, (index,))
            else:
                return node

    def _list(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._take(end):
            items.append(self.ternary())
            if not self._take(","):
                self.expect(end)
                break
        return tuple(items)

    def _map(self) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._take("}"):
            items.append(self.ternary())
            self.expect(":")
            items.append(self.ternary())
            if not self._take(","):
                self.expect("}")
                break
        return tuple(items)

    def _primary(self) -> Node:
        kind, text = self._next()
        self._place += 1
        match kind, text:
            case "number", _:
                return Node("literal", float(text) if "." in text else int(text.rstrip("u")))
            case "string", _:
                return Node("literal", text.lstrip("rRbB")[1:-1])
            case "name", "true" | "false" | "null":
                return Node("literal", {"true": True, "false": False}.get(text))
            case "name", _:
                if self._take("("):
                    return Node("call", text, args=self._list(")"))
                return Node("name", text)
            case _, "(":
                inner = self.ternary()
                self.expect(")")
                return inner
            case _, "[":
                return Node("list", args=self._list("]"))
            case _, "{":
                return Node("map", args=self._map())
        raise ValueError(f"unexpected {text or 'end'!r}")

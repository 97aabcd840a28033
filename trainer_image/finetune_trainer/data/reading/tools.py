"""Tools and calls of them, as objects or as JSON text of these, in OpenAI's form or bare."""

from __future__ import annotations

from typing import Any

from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.lines import STRICT_JSON
from finetune_trainer.data.messages import ToolCall


def parse_tools(value: Any, field: str = "tools") -> tuple[dict[str, Any], ...]:
    """Return the tools as `{"type": "function", "function": {...}}`, whichever way given."""
    value = unquoted(value, Kind.BAD_TOOLS, f"'{field}'")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError(Kind.BAD_TOOLS, f"'{field}' is not a list")
    return tuple(_tool(item, f"{field}[{index}]") for index, item in enumerate(value))


def parse_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    """Return the calls of a turn; of several the order stays."""
    value = unquoted(value, Kind.BAD_TOOL_CALL, where)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} is not a list")
    return tuple(parse_call(item, f"{where}[{i}]") for i, item in enumerate(value))


def parse_call(value: Any, where: str) -> ToolCall:
    """Return one call, of the form that OpenAI gives it or bare."""
    value = unquoted(value, Kind.BAD_TOOL_CALL, where)
    function = _function(value)
    if function is None:
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} is not an object with a function")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} has no function name")
    if isinstance(arguments, str):
        arguments = unquoted(arguments, Kind.BAD_TOOL_CALL, f"{where}.arguments")
    else:
        arguments = without_nulls(arguments)
    if not isinstance(arguments, dict):
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} has no arguments; give an object, may be {{}}")
    identity = value.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RowError(Kind.WRONG_TYPE, f"{where}.id is not text")
    return ToolCall(name, arguments, identity)


def without_nulls(value: Any) -> Any:
    """Return a value without keys that are null: Arrow gives an object the keys of all others."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _tool(value: Any, where: str) -> dict[str, Any]:
    value = without_nulls(unquoted(value, Kind.BAD_TOOLS, where))
    if not isinstance(value, dict):
        raise RowError(Kind.BAD_TOOLS, f"{where} is not an object")
    function = _function(value)
    if function is None or not isinstance(function.get("name"), str):
        raise RowError(Kind.BAD_TOOLS, f"{where} has no function name")
    if not isinstance(function.get("parameters", {}), dict):
        raise RowError(Kind.BAD_TOOLS, f"{where}.parameters is not a JSON schema")
    return value if function is not value else {"type": "function", "function": value}


def _function(value: Any) -> dict[str, Any] | None:
    """Return the object that names a function."""
    if not isinstance(value, dict):
        return None
    function = value.get("function")
    if function is None:
        return value
    return function if isinstance(function, dict) else None


def unquoted(value: Any, kind: Kind, where: str) -> Any:
    """Return what a JSON text holds, None where it is empty; any other value as it is."""
    if not isinstance(value, str):
        return value
    if not value or value.isspace():
        return None
    try:
        return STRICT_JSON.decode(value)
    except (ValueError, RecursionError) as error:
        raise RowError(kind, f"{where} is not JSON") from error

"""What to write instead of a field that is refused: an API server says only what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from finetune_api.crd import schema
from finetune_api.foreign_names import FIELDS, VALUES, plain
from kube_schema.field_errors import FieldError, Json, Schema, child

Written = Callable[[str], str | None]  # a field's path -> its value as the file has it
_PARTS = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def remedied(errors: list[FieldError], body: Json, written: Written) -> list[FieldError]:
    """Return the errors, each with what to write, where that is known."""
    return [_remedied(error, body, written) for error in errors]


def _remedied(error: FieldError, body: Json, written: Written) -> FieldError:
    value = _value(body, error.path)
    match error.kind:
        case "FieldValueForbidden" if error.message == "unknown field":
            remedy = _of_unknown(error.path)
        case "FieldValueTypeInvalid":
            text = written(error.path)
            remedy = _of_type(error.path, value, json.dumps(value) if text is None else text)
        case "FieldValueNotSupported":
            remedy = _of_value(value, _schema_at(error.path).get("enum", []))
        case "FieldValueRequired":
            remedy = _of_missing(error.path)
        case "FieldValueTooMany" if _schema_at(error.path).get("maxProperties") == 0:
            remedy = "; write text, a whole number, true or false"
        case _:
            remedy = ""
    return replace(error, message=f"{error.message}{remedy}") if remedy else error


def _of_unknown(path: str) -> str:
    """Return where what a field means is said."""
    parent, _, name = path.rpartition(".")
    here = list(_schema_at(parent).get("properties", {}))
    same = [one for one in here if plain(one) == plain(name)]
    if same:
        return f"; write {same[0]}"
    if (known := FIELDS.get(plain(name))) is not None:
        return known if known.startswith(";") else f"; write {known}"
    elsewhere = [one for one in _fields() if plain(one.rpartition(".")[2]) == plain(name)]
    if elsewhere:
        return f"; write {' or '.join(elsewhere[:3])}"
    if close := get_close_matches(name, here, n=1, cutoff=0.7):
        return f"; did you mean {close[0]}?"
    last = {one.rpartition(".")[2]: one for one in _fields()}
    if close := get_close_matches(name, list(last), n=1, cutoff=0.8):
        return f"; did you mean {last[close[0]]}?"
    return f"; there are: {', '.join(here)}" if here else ""


def _of_type(path: str, value: Json, text: str) -> str:
    """Return how a value of another type is to be written."""
    wanted = _schema_at(path)
    kind = wanted.get("type", "string")
    if kind == "string" and isinstance(value, bool | int | float):
        return f"; write {json.dumps(text)}, in quotes"
    if kind in ("integer", "boolean") and isinstance(value, str):
        bare = value.strip().lower().replace("_", "").replace(",", "")
        if re.fullmatch(r"-?\d+" if kind == "integer" else "true|false", bare):
            return f"; write {bare}, without quotes"
    if kind == "integer" and isinstance(value, float):
        return f"; write {int(value)}" if value.is_integer() else "; write a whole number"
    if kind == "array" and not isinstance(value, dict | list):
        return f"; write a list: [{_item(wanted.get('items', {}), text)}]"
    if kind == "array" and isinstance(value, dict):
        return "; write a list: put `- ` before its first field"
    if kind == "object" and not isinstance(value, dict):
        names = list(wanted.get("properties", {}))
        if isinstance(value, str) and "uri" in names:
            return f"; write {{{_uri(value)}}}"
        if isinstance(value, str) and names == ["name"]:
            return f"; write {{name: {value}}}"
        if isinstance(value, str) and "type" in names:
            return f"; write {{type: {value}}}"
        return f"; write its fields: {', '.join(names)}" if names else ""
    return ""


def _item(items: Schema, text: str) -> str:
    if "uri" in items.get("properties", {}):
        return f"{{{_uri(text)}}}"
    allowed = items.get("enum")
    return _here(text, allowed) or text if allowed else text


def _uri(text: str) -> str:
    if "://" not in text and re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        text = f"hf://{text}"
    return f"uri: {json.dumps(text)}"


def _of_value(value: Json, allowed: list[Json]) -> str:
    here = _here(str(value), allowed)
    return f"; write {here}" if here else ""


def _here(text: str, allowed: list[Any]) -> str | None:
    """Return what is written here for a value of another tool, or for one that is misspelt."""
    for one in allowed:
        if plain(str(one)) == plain(text):
            return str(one)
    known = VALUES.get(plain(text), "")
    if known and all(part in allowed for part in known.split(", ")):
        return known
    close = get_close_matches(text, [str(one) for one in allowed], n=1, cutoff=0.7)
    return close[0] if close else None


_EXAMPLES = {
    "spec": "model, data and output, at least",
    "spec.model": '{uri: "hf://OWNER/NAME"}',
    "spec.data": "{train: [{uri: s3://BUCKET/train.jsonl}]}",
    "spec.data.train": "[{uri: s3://BUCKET/train.jsonl}]",
    "spec.output": "{uri: s3://BUCKET/NAME}",
    "metadata.name": "{name: NAME} in metadata",
}


def _of_missing(path: str) -> str:
    example = _EXAMPLES.get(path)
    return f"; write {example}" if example else ""


def _schema_at(path: str) -> Schema:
    """Return the schema of a field; {} where it is unknown."""
    node = schema()
    for name, _ in _PARTS.findall(path):
        others = node.get("additionalProperties", {})
        node = node.get("properties", {}).get(name, others) if name else node.get("items", {})
    return node


def _value(body: Json, path: str) -> Json:
    """Return the value of a field; None where there is none."""
    for name, index in _PARTS.findall(path):
        try:
            body = body[name] if name else body[int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return body


def _fields() -> Iterator[str]:
    """Yield the paths of all fields of a job's spec, lists without indices."""
    left = [("spec", schema()["properties"]["spec"])]
    while left:
        path, node = left.pop(0)
        if path != "spec":
            yield path
        inner = node.get("items", node)
        left += [(child(path, name), sub) for name, sub in inner.get("properties", {}).items()]

"""What a turn says: text, or a list of parts that are text or reasoning."""

from __future__ import annotations

from typing import Any

from finetune_trainer.data.faults import Kind, RowError

TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHT_PARTS = ("thinking", "reasoning")
# Keys of a part that are text's, or say nothing of what is said.
_ABOUT_TEXT = {"type", "text", "id", "index", "cache_control", "annotations", "citations"}
_JSON_TYPES = {bool: "a truth value", int: "a number", float: "a number", dict: "an object"}


def said(content: Any, where: str) -> tuple[str, str | None]:
    """Return the text of a turn's content, and its parts that are reasoning; raise RowError."""
    if isinstance(content, str):
        return content, None
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise RowError(
            Kind.NON_TEXT_CONTENT,
            f"{where} is {_JSON_TYPES.get(type(content), 'null')}, not text; write it in quotes",
        )
    texts: list[str] = []
    thoughts: list[str] = []
    for index, part in enumerate(content):
        text, is_thought = _part(part, f"{where}[{index}]")
        (thoughts if is_thought else texts).append(text)
    return "".join(texts), "".join(thoughts) or None


def _part(part: Any, where: str) -> tuple[str, bool]:
    """Return the text of a part, and whether it is reasoning; keys that are null are absent."""
    if isinstance(part, str):
        return part, False
    if not isinstance(part, dict):
        raise RowError(Kind.NON_TEXT_CONTENT, f"{where} is neither text nor an object")
    kind = part.get("type")
    if kind is None or kind in TEXT_PARTS:
        text = part.get("text")
        more = {key for key, item in part.items() if item not in (None, [], {}, "")} - _ABOUT_TEXT
        if isinstance(text, str) and not more:
            return text, False
        if isinstance(text, str):
            raise RowError(
                Kind.NON_TEXT_CONTENT,
                f"{where} holds more than its text, which would be left out; write all of it as "
                "text (an object by json.dumps)",
            )
        raise RowError(Kind.NON_TEXT_CONTENT, f"{where} is a part without text")
    if kind in THOUGHT_PARTS:
        text = next((part[name] for name in (*THOUGHT_PARTS, "text") if part.get(name)), "")
        return said(text, where)[0], True
    raise RowError(Kind.NON_TEXT_CONTENT, f"{where} is a part of type {_type(kind)}, not text")


def _type(kind: Any) -> str:
    """Return a part's type if it is a word, which no text of a row is told by."""
    short = isinstance(kind, str) and kind.replace("_", "").isalnum() and len(kind) <= 32
    return f"'{kind}'" if short else "unknown"

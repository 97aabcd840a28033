"""What an API server answers, read; between it and the operator others may answer in its place."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.cluster.api import ApiError, Change
from finetune_operator.cluster.json_text import read
from finetune_operator.job.names import Object
from finetune_operator.job.parts import part, parts

_IDENTITY = {"name", "uid"}


@dataclass(frozen=True)
class Page:
    """A part of a list: its objects, what continues it, and as of when it is."""

    items: list[Object]
    following: str
    version: str


def is_object(body: Object) -> bool:
    """Tell whether it says which object it is."""
    return part(body, "metadata").keys() >= _IDENTITY


def page_of(answer: Object) -> Page | None:
    """Read a list; None if it is no list of objects."""
    items, metadata = parts(answer, "items"), part(answer, "metadata")
    if not all(map(is_object, items)) or len(items) != len(answer.get("items", "?") or ()):
        return None
    following, version = metadata.get("continue"), metadata.get("resourceVersion")
    return Page(items, str(following or ""), str(version or ""))


def change(line: bytes, said: Object) -> Change:
    """Read a line of a watch. Raises ValueError, LookupError, RecursionError, and ApiError for an
    error."""
    event = part({"event": read(line)}, "event")
    body = part(event, "object")
    if event["type"] == "ERROR":
        code = body.get("code")
        raise _told(code if isinstance(code, int) else 500, body)
    metadata = part(body, "metadata")
    version = str(metadata["resourceVersion"])
    if event["type"] == "BOOKMARK":
        return Change(version)
    if not is_object(body):
        raise LookupError("no object")
    return Change(version, {**body, **said}, event["type"] == "DELETED")


def refusal(code: int, payload: bytes) -> ApiError:
    """Read a Status object; a path that is not served at all answers in plain text."""
    try:
        status = read(payload)
    except (ValueError, RecursionError):
        return ApiError(code, "", payload[:500].decode(errors="replace").strip())
    if not isinstance(status, dict):
        return ApiError(code, "", payload[:500].decode(errors="replace"))
    return _told(code, status)


def _told(code: int, status: Object) -> ApiError:
    reason, message = status.get("reason"), status.get("message")
    return ApiError(code, reason if isinstance(reason, str) else "", str(message or ""))

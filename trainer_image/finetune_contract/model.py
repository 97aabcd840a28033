"""The base of every message: immutable, camelCase on the wire, unknown fields refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Message(BaseModel):
    """A value that crosses a process boundary as JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no white space, absent fields left out."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_none=True))


class Terse(Message):
    """A message that leaves its defaults unsaid, so that they must never change.

    A field that is added leaves the text of messages that do not use it as it was: their digest
    stays, and readers that do not know the field go on.
    """

    def to_json(self) -> str:
        """Return canonical JSON of what is not a default."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_defaults=True))


class Telling(Message):
    """What a trainer tells. An operator may be older than its trainer: fields that it does not know
    are passed over."""

    model_config = ConfigDict(extra="ignore")


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_digest(data: bytes) -> str:
    """Return `sha256:<hex>` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()

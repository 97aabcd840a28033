"""The base of every message: immutable, camelCase on the wire, unknown fields refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from enum import Enum
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from finetune_contract.foreign import LARGEST

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]


class Reach(Enum):
    """What a text names that lies outside the job: a mark of its field's type, by which the
    operator finds all that its chart may forbid."""

    URI = "where something is read from or sent to"
    SERVER = "a URI that prompts and completions are sent to"
    IMAGE = "a container image"
    SERVICE_ACCOUNT = "a ServiceAccount that pods run as"
    HOST_PATH = "a path on the node"


# No user, no key, no query: a URI stands in status, logs and manifests for all to read. These are
# not the fields' patterns, as a server shows what breaks a pattern.
URI = r"^(hf|s3|file)://[^\s?#@:/]*(/[^\s?#]*)?$"
STORE_URI = URI.replace("hf|", "")
HTTP_URI = r"^https?://[^\s?#@/]+(/[^\s?#]*)?$"


def _written_as(pattern: str) -> AfterValidator:
    def check(uri: str) -> str:
        if not re.fullmatch(pattern, uri):
            raise ValueError("must be an address without user, key and query")
        return uri

    return AfterValidator(check)


Uri = Annotated[str, Field(min_length=6, max_length=1024), _written_as(URI), Reach.URI]
StoreUri = Annotated[str, Field(min_length=6, max_length=1024), _written_as(STORE_URI), Reach.URI]
HttpUri = Annotated[str, Field(max_length=1024), _written_as(HTTP_URI)]
Revision = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w./-]+$")]


class Message(BaseModel):
    """A value that crosses a process boundary as JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
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

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Sealed(Message):
    """A manifest, which is written last: without it, what it lists does not exist."""

    def encode(self) -> bytes:
        """Return the bytes of `manifest.json`."""
        return self.to_json().encode()

    def digest(self) -> str:
        """Return sha256 of `manifest.json`."""
        return sha256_digest(self.encode())


M = TypeVar("M", bound=BaseModel)


def filled(target: type[M], source: BaseModel, **given: Any) -> M:
    """Return a `target` whose fields are those `given`, and else the source's of the same name.

    Blocks within are filled alike; what is empty in the source has the target's default. Raises
    AttributeError for a field that is neither given nor the source's, so that none is forgotten,
    and pydantic's ValidationError.
    """
    return target.model_validate(_values(target, source, given))


def _values(target: type[BaseModel], source: BaseModel, given: dict[str, Any]) -> dict[str, Any]:
    named = {
        name: _as(field.annotation, getattr(source, name))
        for name, field in target.model_fields.items()
        if name not in given
    }
    return {k: v for k, v in {**named, **given}.items() if v not in (None, (), [])}


def _as(annotation: Any, value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_as(annotation, one) for one in value]
    if isinstance(value, BaseModel):
        return _values(_block(annotation), value, {})
    return value


def _block(annotation: Any) -> type[BaseModel]:
    """Return the class of blocks in an annotation such as `tuple[Block, ...]` or `Block | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_block(one) for one in get_args(annotation) if one is not type(None))


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value, so that equal values have equal digests."""
    return _CANONICAL.encode(value)


def sha256_digest(data: bytes) -> str:
    """Return `sha256:<hex>` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_as_told(data: bytes, variable: str) -> bool:
    """Tell whether bytes have the digest that a variable of the environment says, if it says any:
    a pod's can not be changed, while the ConfigMap that a file is mounted from can."""
    return os.environ.get(variable) in (None, sha256_digest(data))

"""What the API's models share: CEL rules, and scalars that only Kubernetes has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, WithJsonSchema

from finetune_api.quantity import INT_OR_STRING
from finetune_contract.model import HTTP_URI, STORE_URI, Message
from finetune_contract.recipe import ConfigMapFile

M = TypeVar("M", bound=Message)
_RULES = "x-kubernetes-validations"
ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}


@dataclass(frozen=True)
class Rule:
    """A class decorator that adds an `x-kubernetes-validations` entry to a block's schema: standard
    CEL, what the user should do, and the field. A server reports them from top to bottom."""

    expression: str
    message: str
    field: str | None = None

    def __call__(self, block: type[M]) -> type[M]:
        """Add the entry before those that stand below: Python applies decorators bottom up."""
        entry: dict[str, Any] = {"rule": self.expression, "message": self.message}
        if self.field is not None:
            entry["fieldPath"] = self.field
        extra: Any = block.model_config.get("json_schema_extra", {})
        block.model_config["json_schema_extra"] = {_RULES: [entry, *extra.get(_RULES, [])]}
        return block


def keyed_by(field: str) -> dict[str, Any]:
    """Return the schema extension of a list whose items are told apart by one of their fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field]}


def after(field: str) -> dict[str, str]:
    """Return the schema extension that puts a field behind another one of its block.

    Without it, it stands behind all those that the block has from the contract.
    """
    return {AFTER: field}


AFTER = "x-after"
_NUMBER = "[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,2})?"
DECIMAL = f"^{_NUMBER}$"
SIGNED_DECIMAL = f"^-?{_NUMBER}$"


def bound(field: str, comparison: str, message: str, unless: str = "") -> Rule:
    """Return a rule that compares a decimal field of `self` with a number; `unless` is CEL that
    ends in `||`.

    Absent and malformed values pass: the former when a server checks the default {}, the latter
    because the pattern has refused them already.
    """
    value = f"self.{field}"
    holds = f"!has({value}) || {unless}double({value}) {comparison}"
    return Rule(f"{holds} || {_is_no_decimal(value)}", message, f".{field}")


def http_address(field: str, form: str) -> Rule:
    """Return a rule on a URL that a token may be sent to; `form` is how it should look."""
    return _address(field, HTTP_URI, f"{form}; a token goes")


def store_address(field: str, pattern: str = STORE_URI) -> Rule:
    """Return a rule on the URI of a store; URI's pattern also takes the hub."""
    schemes = "s3:// or file://" if pattern == STORE_URI else "hf://, s3:// or file://"
    form = f"{schemes} and a path, without user, key or query; keys go"
    return _address(field, pattern, form)


def _address(field: str, pattern: str, form: str) -> Rule:
    """Return a rule beside a field: a pattern on it would show what it refuses to everyone."""
    escaped = pattern.replace("\\", "\\\\")
    expression = f"!has(self.{field}) || self.{field}.matches('{escaped}')"
    return Rule(expression, f"write {form} into credentialsSecretRef", f".{field}")


def decimal_is_zero(field: str) -> str:
    """Return CEL: a decimal field of `self` is zero, absent or malformed."""
    value = f"self.{field}"
    return f"(!has({value}) || double({value}) == 0.0 || {_is_no_decimal(value)})"


def _is_no_decimal(value: str) -> str:
    """Return CEL to stand last, since a pattern is compiled whenever it is asked: an error before
    it, of text that is no number, counts for nothing where this is true."""
    return f"!{value}.matches('{DECIMAL}')"


def listed(field: str, value: str) -> str:
    """Return CEL: a list field of `self` is there and holds `value`."""
    return f"(has(self.{field}) && '{value}' in self.{field})"


Name = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
"""The name of an object in the job's namespace (RFC 1123 subdomain)."""

IntOrString = Annotated[int | str, WithJsonSchema(INT_OR_STRING)]


class SecretRef(Message):
    """A Secret in the job's namespace; every key becomes a file in the trainer's container."""

    name: Name
    """Name of the Secret. Keys for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and optionally
    AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION, ca.crt. Key for hf: HF_TOKEN."""


class ConfigMapKey(ConfigMapFile):
    """One file of a ConfigMap in the job's namespace."""

    name: Name
    """Name of the ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """Its key, whose value is the text."""

"""Shared bases and bounded scalar types of the API."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel


def rule(expression: str, message: str, field: str | None = None) -> dict[str, str]:
    """Return one `x-kubernetes-validations` entry: standard CEL and what the user should do."""
    entry = {"rule": expression, "message": message}
    if field is not None:
        entry["fieldPath"] = field
    return entry


def rules(*entries: dict[str, str], **extra: Any) -> dict[str, Any]:
    """Return the schema extension that carries CEL rules (and other extensions) for a model."""
    return {"x-kubernetes-validations": list(entries), **extra}


class ApiModel(BaseModel):
    """A stanza of the resource: immutable, camelCase, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


_NUMBER = "[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,2})?"
DECIMAL = f"^{_NUMBER}$"
DecimalString = Annotated[str, Field(max_length=24, pattern=DECIMAL)]
"""A non-negative number as a string, since the API has no floats."""
SignedDecimal = Annotated[str, Field(max_length=24, pattern=f"^-?{_NUMBER}$")]
"""A number as a string, of either sign."""


def bound(field: str, comparison: str, message: str) -> dict[str, str]:
    """Return a rule that compares a DecimalString field of `self` with a number.

    Absent and malformed values pass: the former when a server checks the default {}, the latter
    because the pattern has refused them already.
    """
    value = f"self.{field}"
    expression = f"!has({value}) || !{value}.matches('{DECIMAL}') || double({value}) {comparison}"
    return rule(expression, message, f".{field}")


def http_address(field: str, pattern: str, form: str) -> dict[str, str]:
    """Return a rule on a URL that a token may be sent to; `form` is how it should look.

    It stands beside the field: a pattern on it would show a password in the URL to everyone.
    """
    escaped = pattern.replace("\\", "\\\\")
    expression = f"!has(self.{field}) || self.{field}.matches('{escaped}')"
    return rule(expression, f"write {form}; a token goes into credentialsSecretRef", f".{field}")


def decimal_is_zero(field: str) -> str:
    """Return CEL: a DecimalString field of `self` is zero, absent or malformed."""
    value = f"self.{field}"
    return f"(!has({value}) || !{value}.matches('{DECIMAL}') || double({value}) == 0.0)"


def listed(field: str, value: str) -> str:
    """Return CEL: a list field of `self` is there and holds `value`."""
    return f"(has(self.{field}) && '{value}' in self.{field})"


Name = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
"""The name of an object in the job's namespace (RFC 1123 subdomain)."""

_INT_OR_STRING: dict[str, Any] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "maxLength": 32,
    "x-kubernetes-int-or-string": True,
}
IntOrString = Annotated[int | str, WithJsonSchema(_INT_OR_STRING)]

_QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
Quantity = Annotated[int | str, WithJsonSchema({**_INT_OR_STRING, "pattern": _QUANTITY_PATTERN})]
"""A non-negative resource.Quantity such as 8, "500m" or "16Gi"."""


class SecretRef(ApiModel):
    """A Secret in the job's namespace; every key becomes a file in the trainer's container."""

    name: Name
    """Name of the Secret. Keys for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and optionally
    AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION, ca.crt. Key for hf: HF_TOKEN."""

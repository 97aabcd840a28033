"""Kubernetes' resource.Quantity: how it is written, and what it means."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal
from typing import Annotated, Any

from pydantic import WithJsonSchema

INT_OR_STRING: dict[str, Any] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "maxLength": 32,
    "x-kubernetes-int-or-string": True,
}
_PATTERN = r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
Quantity = Annotated[int | str, WithJsonSchema({**INT_OR_STRING, "pattern": _PATTERN})]
"""A non-negative resource.Quantity such as 8, "500m" or "16Gi"."""

_FACTORS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}

_MOST = 2**63 - 1  # of any quantity; Kubernetes caps larger ones too
_WIDE = Context(prec=50, traps=[])  # what is beyond its exponents is infinite, or nothing


def amount(quantity: Quantity) -> int:
    """Return a quantity in its base unit, rounded up."""
    value = exact(quantity)
    return _MOST if value > _MOST else int(value.to_integral_value(ROUND_CEILING))


def exact(quantity: Quantity) -> Decimal:
    """Return a quantity in its base unit."""
    text = str(quantity)
    suffix = next((s for s in _FACTORS if text.endswith(s)), "")
    number = _WIDE.create_decimal(text.removesuffix(suffix))
    return _WIDE.multiply(number, _FACTORS.get(suffix, Decimal(1)))

"""Resource quantities: their value, and the one form a server stores them in.

Follows `resource.Quantity`: the largest suffix that leaves a whole number, in the family of
suffixes the quantity was written with (`1000m` -> `1`, `0.5` -> `500m`, `1024Mi` -> `1Gi`).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_WRITTEN = re.compile(r"([+-]?\d+\.?\d*|[+-]?\.\d+)([EPTGMK]i|[EPTGMkmun]?)")
_DECIMAL = [(s, Decimal(1000) ** p) for s, p in zip("EPTGMk", range(6, 0, -1), strict=True)]
_DECIMAL += [("", Decimal(1)), *((s, Decimal(1000) ** -p) for p, s in enumerate("mun", 1))]
_BINARY = [(f"{s}i", Decimal(1024) ** p) for s, p in zip("EPTGMK", range(6, 0, -1), strict=True)]
_FACTORS = {**dict(_DECIMAL), **dict(_BINARY)}


def parse(written: str | float) -> Decimal:
    """A quantity ("500m", "2Gi", "1e3", 4) in base units.

    Raises:
        decimal.InvalidOperation: not a quantity.
    """
    match = _WRITTEN.fullmatch(str(written))
    if match is None:
        return Decimal(str(written))
    return Decimal(match[1]) * _FACTORS[match[2]]


def canonical(written: Any) -> Any:
    """The stored form of a quantity; what is none, or has an exponent, stays as it is."""
    match = _WRITTEN.fullmatch(str(written))
    if match is None:
        return written
    value = parse(written)
    if value == 0:
        return "0"
    binary = match[2].endswith("i") and abs(value) >= 1024
    for name, factor in [*_BINARY, ("", Decimal(1))] if binary else _DECIMAL:
        if value % factor == 0:
            return f"{int(value / factor)}{name}"
    return written


def canonical_amounts(resources: dict[str, Any]) -> None:
    """Rewrite, in place, the limits and requests of a container."""
    for amounts in (resources.get("limits", {}), resources.get("requests", {})):
        for name, amount in amounts.items():
            amounts[name] = canonical(amount)

"""JSON as an API server writes it, read and written by the parser of pydantic, which is faster.

What that one refuses and Python's does not, such as half of a surrogate pair, is left to Python's.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json, to_json


def read(text: bytes) -> Any:
    """Return the value of a text. Raises ValueError or RecursionError."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def write(value: Any) -> bytes:
    """Return the text of a value. Raises RecursionError."""
    try:
        return to_json(value)
    except ValueError:
        return json.dumps(value, separators=(",", ":")).encode()

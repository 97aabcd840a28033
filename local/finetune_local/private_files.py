"""Files that only their owner may read."""

import json
import os
from pathlib import Path


def write_json(path: Path, content: object) -> None:
    """Write `content` as JSON with mode 0600, in one step."""
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
    os.replace(partial, path)

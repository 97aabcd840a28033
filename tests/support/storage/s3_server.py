"""A real S3 server for tests, and credentials directories for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_local import s3

NEXT_KEY, NEXT_SECRET = "NEXTKEY0000000000000", "next-secret-of-the-same-user-0000000000"


@contextmanager
def s3_server(directory: Path) -> Iterator[s3.S3Server]:
    """Run the server with data below a directory. It knows a second pair of keys, NEXT_KEY's."""
    server = s3.prepare(directory)
    identities = directory / s3.IDENTITIES
    known = json.loads(identities.read_text())
    known["identities"][0]["credentials"].append({"accessKey": NEXT_KEY, "secretKey": NEXT_SECRET})
    identities.write_text(json.dumps(known))
    with s3.running(server, directory / "log"):
        yield server


def write_keys(directory: Path, server: s3.S3Server, **changes: str) -> str:
    """Write a credentials directory as a Secret is mounted, and return it."""
    directory.mkdir(exist_ok=True)
    keys = {
        "AWS_ACCESS_KEY_ID": server.access.access_key,
        "AWS_SECRET_ACCESS_KEY": server.access.secret_key,
        "AWS_ENDPOINT_URL": server.access.endpoint,
        **changes,
    }
    for name, value in keys.items():
        (directory / name).write_text(value + "\n")
    return str(directory)

"""The quickstart's bucket without a cluster: a private S3 server that lives as long as a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_local import demo_data, s3


@contextmanager
def serve_demo_bucket() -> Iterator[dict[str, Path]]:
    """Serve the demo's model and rows; yield the directory of each Secret by its name."""
    with tempfile.TemporaryDirectory(prefix="finetune-demo-") as work:
        server = s3.prepare(Path(work) / "s3")
        with s3.running(server, Path(work) / "s3.log"):
            demo_data.upload(server.access.store(demo_data.BUCKET))
            secret = Path(work) / "secret"
            write_secret(secret, server.access.secret_keys())
            yield {demo_data.SECRET_NAME: secret}


def write_secret(directory: Path, keys: dict[str, str]) -> None:
    """Write one file per key, readable by the user alone."""
    directory.mkdir(mode=0o700)
    for name, value in keys.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(value)

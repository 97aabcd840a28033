"""The quickstart's bucket without a cluster: a private S3 server that lives as long as a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract.credentials import CredentialKey
from finetune_local import demo_data, s3


@contextmanager
def serve_demo_bucket() -> Iterator[dict[str, Path]]:
    """Serve the demo's model and rows; yield the directory of each Secret by its name."""
    with tempfile.TemporaryDirectory(prefix="finetune-demo-") as work:
        server = s3.prepare(Path(work) / "s3")
        with s3.running(server, Path(work) / "s3.log"):
            demo_data.upload(server.store(demo_data.BUCKET))
            secret = Path(work) / "secret"
            keys = server.credentials
            write_secret(secret, secret_keys(server.endpoint, keys.access_key, keys.secret_key))
            yield {demo_data.SECRET_NAME: secret}


def secret_keys(endpoint: str, access_key: str, secret_key: str) -> dict[str, str]:
    """Return the keys of a Secret that opens an S3 server of this package."""
    return {
        str(CredentialKey.ACCESS_KEY_ID): access_key,
        str(CredentialKey.SECRET_ACCESS_KEY): secret_key,
        str(CredentialKey.ENDPOINT_URL): endpoint,
        str(CredentialKey.REGION): s3.REGION,
    }


def write_secret(directory: Path, keys: dict[str, str]) -> None:
    """Write one file per key, readable by the user alone."""
    directory.mkdir(mode=0o700)
    for name, value in keys.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(value)

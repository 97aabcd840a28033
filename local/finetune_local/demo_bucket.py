"""The quickstart's bucket without a cluster: a private S3 server that lives as long as a run."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract.credentials import CredentialKey
from finetune_local import demo_data, s3

_READY_SECONDS = 60


@contextmanager
def serve_demo_bucket() -> Iterator[dict[str, Path]]:
    """Serve the demo's model and rows; yield the directory of each Secret by its name."""
    with tempfile.TemporaryDirectory(prefix="finetune-demo-") as work:
        server = s3.prepare(Path(work) / "s3")
        with (Path(work) / "s3.log").open("wb") as log:
            process = subprocess.Popen(
                server.command,
                env=server.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the trainer first, which still writes
            )
        try:
            asyncio.run(asyncio.wait_for(s3.wait_ready(server), _READY_SECONDS))
            demo_data.upload(server.store(demo_data.BUCKET))
            secret = Path(work) / "secret"
            keys = server.credentials
            write_secret(secret, secret_keys(server.endpoint, keys.access_key, keys.secret_key))
            yield {demo_data.SECRET_NAME: secret}
        finally:
            process.kill()
            process.wait()
            server.tidy()


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

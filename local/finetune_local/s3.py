"""The embedded cluster's object storage: one SeaweedFS process on loopback.

The S3 port enforces the credentials. SeaweedFS's inner HTTP ports ask for tokens signed with keys
that never leave the process; its inner gRPC ports are open to processes of this machine.
"""

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from finetune_contract.layout import CredentialKey
from finetune_local import binaries
from finetune_local.private_files import write_json
from finetune_trainer.process.ports import HeldPort

REGION = "us-east-1"
READY_BUCKET = "ready"
IDENTITIES = "identities.json"
RETRY_SECONDS = 0.05
LOG_LINES = 10

JWT_KEYS = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
PARTS = ("s3", "master", "volume", "filer", "admin")
PORT_FLAGS = tuple(f"{part}.port{kind}" for part in PARTS for kind in ("", ".grpc"))


class S3Error(Exception):
    """The server does not serve; the message says why and ends with the end of its log."""


@dataclass(frozen=True)
class Access:
    """How to reach a server: its endpoint, and one identity that is allowed everything."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)

    def store(self, bucket: str) -> S3Store:
        """An obstore client of `bucket`; writing creates the bucket."""
        # a proxy of its own, never used, stands in the way of those from the environment
        unproxied = {"proxy_url": self.endpoint, "proxy_excludes": "127.0.0.1"}
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region=REGION,
            client_options={"allow_http": True, **unproxied},
            retry_config={"max_retries": 0},
        )

    def secret_keys(self) -> dict[str, str]:
        """Return the keys of a Secret that opens the server."""
        return {
            str(CredentialKey.ACCESS_KEY_ID): self.access_key,
            str(CredentialKey.SECRET_ACCESS_KEY): self.secret_key,
            str(CredentialKey.ENDPOINT_URL): self.endpoint,
            str(CredentialKey.REGION): REGION,
        }


@dataclass(frozen=True)
class S3Server:
    """How to start the server and how to reach it. Its ports are held until `tidy`.

    SeaweedFS looks whether its ports are free long before it listens on them. One that is taken
    ends it, or it takes another unasked.
    """

    access: Access
    command: list[str]
    environment: dict[str, str]
    ports: tuple[HeldPort, ...]
    sockets: tuple[Path, ...]
    start_seconds: float = 90.0  # a second is usual; other processes may have the machine

    def tidy(self) -> None:
        """After the process has ended: give back what it took, also in the fixed /tmp."""
        for path in self.sockets:
            path.unlink(missing_ok=True)
        for port in self.ports:
            port.close()


def prepare(directory: Path, hold: Callable[[], HeldPort] = HeldPort) -> S3Server:
    """Make `directory` ready for the server: data below it, and credentials of its own."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = directory / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    held = {flag: _held_port(flag, hold) for flag in PORT_FLAGS}
    ports = {flag: port.number for flag, port in held.items()}
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    access = Access(endpoint, secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
    identities = directory / IDENTITIES
    _write_identity(identities, access)
    return S3Server(
        access,
        command=_command(directory, data, identities, ports),
        # it would leave sockets and logs in the common temporary directory
        environment={"HOME": str(directory), "TMPDIR": str(directory), "PATH": os.defpath}
        | {name: secrets.token_hex(16) for name in JWT_KEYS},
        ports=tuple(held.values()),
        sockets=tuple(_socket(*one) for one in ports.items() if one[0].endswith(".grpc")),
    )


@contextmanager
def running(server: S3Server, log: Path) -> Iterator[None]:
    """Run the server for the length of a `with`.

    Raises S3Error if it ended, or did not answer in time.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            server.command,
            env=server.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C first reaches who still writes to it
        )
    try:
        asyncio.run(wait_ready(server, log, process.poll))
        yield
    finally:
        process.kill()
        process.wait()
        server.tidy()


async def wait_ready(server: S3Server, log: Path, exit_code: Callable[[], int | None]) -> None:
    """Return once a signed write succeeds; `exit_code` tells whether the process has ended.

    Raises S3Error if it has, or the time is over.
    """
    probe, end = server.access.store(READY_BUCKET), time.monotonic() + server.start_seconds
    while True:
        try:
            await obstore.put_async(probe, "probe", b"ready")
            await obstore.delete_async(probe, "probe")
        except BaseError:
            if exit_code() is not None:
                raise S3Error(f"SeaweedFS ended with {exit_code()}:\n{_end_of(log)}") from None
            if time.monotonic() > end:
                what = f"SeaweedFS did not answer in {server.start_seconds:g} s"
                raise S3Error(f"{what}:\n{_end_of(log)}") from None
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def _held_port(flag: str, hold: Callable[[], HeldPort]) -> HeldPort:
    """A port without a socket in /tmp; what another user has left there could not be removed."""
    while True:
        port = hold()
        if not _socket(flag, port.number).exists():
            return port
        port.close()


def _socket(flag: str, port: int) -> Path:
    """Where SeaweedFS listens besides on a gRPC port; no option tells it another place."""
    return Path(f"/tmp/seaweedfs-{flag.partition('.')[0]}-grpc-{port}.sock")  # noqa: S108


def _command(directory: Path, data: Path, identities: Path, ports: dict[str, int]) -> list[str]:
    return [
        str(binaries.weed()),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.config={identities}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={directory}/s3.sock",
        f"-filer.localSocket={directory}/filer.sock",
        "-master.telemetry=false",
        "-master.volumePreallocate=false",
        "-admin.ui=false",
        "-webdav=false",
        *(f"-{flag}={port}" for flag, port in ports.items()),
    ]


def _write_identity(path: Path, access: Access) -> None:
    """Write the identity in the form that `weed -s3.config` reads, mode 0600."""
    keys = {"accessKey": access.access_key, "secretKey": access.secret_key}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "finetune", "credentials": [keys], "actions": actions}
    write_json(path, {"identities": [identity]})

"""Upload and download of an artifact: this project against the plain minio client.

Ours hashes every file before it goes up and checks every byte that comes down against the
manifest; minio's `fput_object` and `fget_object`, one file after the other, do neither. A real S3
server (SeaweedFS) on loopback, files on tmpfs where there is one. Rounds alternate; medians count.

    python benchmarks/storage.py [--rounds 5] [--megabytes 600] [--json FILE]
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from minio import Minio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from finetune_contract.artifact import MANIFEST, VERSION, Manifest, RunIdentity
from finetune_local.s3 import REGION, S3Server
from finetune_trainer.store.artifacts import open_artifact
from finetune_trainer.store.storage import Role, Store
from finetune_trainer.store.transfer import upload_all
from harness.command_line import command_line, save
from support.storage.publications import PROVENANCE, SUMMARY
from support.storage.s3_server import s3_server, write_keys

FILES = 40
BUCKET = "bench"


def write_files(directory: Path, megabytes: int) -> None:
    """Write files of very unequal sizes, as models have, that do not compress."""
    draw = random.Random(0)
    weights = [draw.lognormvariate(0, 1.2) for _ in range(FILES)]
    block = os.urandom(1 << 20)
    for index, weight in enumerate(weights):
        size = int(megabytes * 1e6 * weight / sum(weights))
        with (directory / f"part-{index:02d}.safetensors").open("wb") as file:
            file.write(index.to_bytes(8, "big"))
            for start in range(8, size, len(block)):
                file.write(block[: min(len(block), size - start)])


class Ours:
    """The trainer's way: a manifest of what goes up, a check of what comes down."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.store = Store(f"s3://{BUCKET}", Role.OUTPUT, secret)

    def upload(self, source: Path) -> None:
        files = upload_all(self.store, "ours", source, lambda count: None)
        run = RunIdentity(name="bench", uid="bench", attempt=1)
        manifest = Manifest(
            version=VERSION, run=run, provenance=PROVENANCE, training=SUMMARY, files=files
        )
        self.store.write(f"ours/{MANIFEST}", manifest.encode())

    def download(self, target: Path) -> None:
        open_artifact(f"{self.store.uri}/ours", self.secret, target)


class Plain:
    """The minio client, one file after the other."""

    def __init__(self, server: S3Server) -> None:
        access = server.access
        self.client = Minio(
            server.access.endpoint.removeprefix("http://"),
            access_key=access.access_key,
            secret_key=access.secret_key,
            secure=False,
            region=REGION,
        )

    def upload(self, source: Path) -> None:
        for path in sorted(source.iterdir()):
            self.client.fput_object(BUCKET, f"plain/{path.name}", str(path))

    def download(self, target: Path) -> None:
        for item in self.client.list_objects(BUCKET, "plain/"):
            name = str(item.object_name)
            self.client.fget_object(BUCKET, name, str(target / Path(name).name))


def timed(work: Callable[[Path], None], path: Path) -> float:
    started = time.perf_counter()
    work(path)
    return time.perf_counter() - started


def measure(rounds: int, megabytes: int, directory: Path) -> dict[str, dict[str, float]]:
    """Return the median MB/s of each client's uploads and downloads."""
    source = directory / "source"
    source.mkdir()
    write_files(source, megabytes)
    total = sum(path.stat().st_size for path in source.iterdir()) / 1e6
    rates: dict[str, dict[str, list[float]]] = {}
    with s3_server(directory / "s3") as server:
        secret = write_keys(directory / "secret", server)
        clients = {"ours": Ours(secret), "minio": Plain(server)}
        clients["ours"].store.write("warm", b"")  # type: ignore[union-attr] # makes the bucket
        for number in range(rounds):
            order = list(clients.items())
            for name, client in order if number % 2 else reversed(order):
                for verb, path in (("upload", source), ("download", directory / "target")):
                    rate = total / timed(getattr(client, verb), path)
                    rates.setdefault(verb, {}).setdefault(name, []).append(rate)
                    shutil.rmtree(directory / "target", ignore_errors=True)
    return {
        verb: {name: statistics.median(values) for name, values in by_name.items()}
        for verb, by_name in rates.items()
    }


def main() -> None:
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--megabytes", type=int, default=600)
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        measured = measure(arguments.rounds, arguments.megabytes, Path(directory))
    for verb, rates in measured.items():
        ours, plain = rates["ours"], rates["minio"]
        print(f"{verb:9} {ours:6.0f} MB/s, minio {plain:6.0f} MB/s: {ours / plain:.2f}x")
    save(measured, arguments.json)


if __name__ == "__main__":
    main()

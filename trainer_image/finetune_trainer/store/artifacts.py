"""Published adapters, read back: the manifest first, then every file's size and sha256.

Torch-free: whoever uses an adapter opens it with `open_artifact`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from finetune_contract.artifact import LATEST, MANIFEST, FileEntry, Latest, Manifest
from finetune_contract.model import sha256_digest
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.appearing import appearing
from finetune_trainer.store.storage import OnBytes, Role, Store
from finetune_trainer.store.transfer import at_once, one_at_a_time

Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class Located:
    """An artifact in a store: its directory below the store's URI, and its manifest as stored."""

    base: str
    manifest: Manifest
    data: bytes

    @property
    def digest(self) -> str:
        """Return the artifact's digest: sha256 of `manifest.json`."""
        return sha256_digest(self.data)

    def entry(self, path: str) -> FileEntry:
        """Return what the manifest says of a file. Raises VerificationFailed if nothing."""
        found = next((entry for entry in self.manifest.files if entry.path == path), None)
        if found is None:
            raise _damaged(f"the manifest of the artifact names no {path}")
        return found


def open_artifact(uri: str, credentials_dir: str | None, dest: Path) -> Path:
    """Download an artifact into `dest` and return it.

    `uri` is a job's output URI, where latest.json names the artifact, or an artifact's own
    directory. Raises Failure(VerificationFailed), naming the file, for one that is altered, cut or
    missing, and where there is no manifest: without it an artifact does not exist.
    """
    store = Store(uri, Role.OUTPUT, credentials_dir)
    located = locate(store)
    dest.mkdir(parents=True, exist_ok=True)
    at_once(
        lambda entry: download(store, located.base, entry, dest / entry.path),
        located.manifest.files,
    )
    (dest / MANIFEST).write_bytes(located.data)
    return dest


def locate(store: Store) -> Located:
    """Return the artifact that a store's latest.json names, else the one it holds itself."""
    latest = read_latest(store)
    if latest is None:
        return read_located(store, "")
    pointer = latest[0].artifact
    if pointer is None:
        raise _damaged(f"{store.uri}/{LATEST} names no artifact: none has been published yet")
    return read_located(store, pointer.path, pointer.digest)


def read_latest(store: Store) -> tuple[Latest, str] | None:
    """Return latest.json and its ETag; None if it does not exist."""
    found = store.read_tagged(LATEST)
    if found is None:
        return None
    try:
        return Latest.model_validate_json(found[0]), found[1]
    except ValidationError as error:
        raise _damaged(f"{store.uri}/{LATEST} is not a pointer of this version") from error


def read_located(store: Store, base: str, digest: str | None = None) -> Located:
    """Return the artifact at a path below the store's URI.

    Raises Failure(VerificationFailed), also where its manifest has another digest than `digest`.
    """
    path = _join(base, MANIFEST)
    found = store.read_tagged(path)
    if found is None:
        raise _damaged(f"{store.uri}/{path} does not exist, so the artifact does not")
    if digest is not None and sha256_digest(found[0]) != digest:
        raise _damaged(f"{store.uri}/{path} is not the one {LATEST} names")
    try:
        manifest = Manifest.model_validate_json(found[0])
    except ValidationError as error:
        raise _damaged(f"{store.uri}/{path} is not a manifest of this version") from error
    for entry in manifest.files:
        pure = PurePosixPath(entry.path)
        if pure.is_absolute() or ".." in pure.parts:
            raise _damaged(f"{store.uri}/{path} names a file outside the artifact: {entry.path}")
    return Located(base, manifest, found[0])


def verify(
    store: Store, base: str, manifest: Manifest, on_bytes: OnBytes = lambda count: None
) -> None:
    """Read every file of the manifest and check it."""
    counted = one_at_a_time(on_bytes)
    at_once(
        lambda entry: _check(store, base, entry, lambda chunk: counted(len(chunk))),
        manifest.files,
    )


def read_checked(store: Store, base: str, entry: FileEntry) -> bytes:
    """Return the bytes of one file of a manifest."""
    chunks: list[bytes] = []
    _check(store, base, entry, chunks.append)
    return b"".join(chunks)


def _check(store: Store, base: str, entry: FileEntry, sink: Sink) -> None:
    path = _join(base, entry.path)
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in store.chunks(path):
            digest.update(chunk)
            size += len(chunk)
            sink(chunk)
    except Failure as failure:
        if failure.reason is store.role.not_found:
            raise _damaged(f"{store.uri}/{path} is missing") from failure
        raise
    if size != entry.bytes:
        raise _damaged(f"{store.uri}/{path} has {size} bytes, its manifest says {entry.bytes}")
    if f"sha256:{digest.hexdigest()}" != entry.sha256:
        raise _damaged(f"{store.uri}/{path} was altered: its sha256 is not its manifest's")


def download(store: Store, base: str, entry: FileEntry, target: Path) -> None:
    """Write one file of a manifest to `target`; raise VerificationFailed if it is another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with appearing(target) as partial, partial.open("wb") as file:
        _check(store, base, entry, file.write)


def _join(base: str, path: str) -> str:
    return f"{base}/{path}" if base else path


def _damaged(message: str) -> Failure:
    return Failure(Reason.VERIFICATION_FAILED, message)

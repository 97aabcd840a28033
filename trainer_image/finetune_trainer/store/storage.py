"""Object storage by URI, `s3://` and `file://`, through obstore.

Errors leave here as `Failure`s that name the URI and the job's field. `file://` has no conditional
PUT in obstore, so it is made here of a lock file and a rename; the lock is advisory (fcntl), good
on local disks and on NFS with locking.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import LocalStore

from finetune_contract.model import STORE_URI, sha256_digest
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Conflict, Failure
from finetune_trainer.process.waiting import rest, waiting
from finetune_trainer.store.appearing import alone
from finetune_trainer.store.buckets import REQUEST_SECONDS, open_bucket
from finetune_trainer.store.credentials import BucketAccess, Keys, MountedKeys
from finetune_trainer.store.storage_errors import Altered, Expired, Place, translated

T = TypeVar("T")

log = logging.getLogger(__name__)

OnBytes = Callable[[int], None]
CHUNK_BYTES = 8 * 1024 * 1024
MOST_PARTS = 10_000  # of one object, S3's limit
TRIES = 3  # where a body arrives altered
ROTATION_SECONDS = 120.0  # until the kubelet shows a renewed Secret to a running pod


class Role(Enum):
    """What a URI is to the job: the field it stands in, and the reason when nothing is there."""

    MODEL = ("spec.model", Reason.MODEL_NOT_FOUND)
    DATA = ("spec.data", Reason.DATA_NOT_FOUND)
    OUTPUT = ("spec.output", Reason.OUTPUT_NOT_FOUND)

    def __init__(self, field: str, not_found: Reason) -> None:
        self.field = field
        self.not_found = not_found

    @property
    def credentials_field(self) -> str:
        """Return the field that names the Secret."""
        return f"{self.field}.credentialsSecretRef"


@dataclass(frozen=True)
class Entry:
    """An object below a store's URI; `etag` changes whenever its content does."""

    path: str
    size: int
    etag: str


class Store:
    """The objects below one URI. Paths are relative to it."""

    def __init__(self, uri: str, role: Role, credentials_dir: str | None = None) -> None:
        if uri.startswith(("s3://", "file://")) and not re.fullmatch(STORE_URI, uri):
            raise Failure(  # which is not shown
                role.not_found,
                f"a URI of {role.field} has a user, a key or a query in it: write s3://BUCKET/PATH "
                f"or file:///PATH; keys go into {role.credentials_field}",
            )
        parts = urlsplit(uri)
        self._keys: MountedKeys | None = None
        self.uri = uri.rstrip("/")
        self.role = role
        self.is_local = parts.scheme == "file"
        self._root = unquote(parts.path).strip("/") if self.is_local else parts.path.strip("/")
        if self.is_local:
            if parts.netloc not in ("", "localhost"):
                raise Failure(role.not_found, f"{uri}: write file:///PATH, with three slashes")
            self._store: Any = LocalStore()
        elif parts.scheme == "s3" and parts.netloc:
            access = BucketAccess.read(credentials_dir, role.credentials_field)
            self._keys = access.keys
            with self._errors(""):
                self._store = open_bucket(parts.netloc, access)
        else:
            raise Failure(role.not_found, f"{uri}: use s3://BUCKET/PATH or file:///PATH")

    def local_path(self, path: str = "") -> Path:
        """Return the path on this machine's disk; for `file://` only."""
        assert self.is_local
        return Path("/", self._root, path)

    def list(self, prefix: str = "") -> list[Entry]:
        """Return the objects below a prefix, sorted by path; nothing is read of them."""

        def listed() -> list[Entry]:
            batches = obstore.list(self._store, self._key(prefix) or None)
            return [
                Entry(
                    str(meta["path"])[len(self._root) :].lstrip("/"),
                    int(meta["size"]),
                    str(meta["e_tag"]),
                )
                for batch in batches
                for meta in batch
            ]

        return sorted(self._do(prefix, listed), key=lambda entry: entry.path)

    def paths(self, prefix: str = "") -> Sequence[str]:
        """Return the paths of the objects below a prefix, sorted; nothing is read of them."""
        return [entry.path for entry in self.list(prefix)]

    def delete(self, path: str) -> None:
        """Remove an object, if it exists; on a disk also the directory that it leaves empty."""
        with suppress(FileNotFoundError):
            self._do(
                path,
                lambda: obstore.delete(self._store, self._key(path)),
                missing_is_failure=False,
            )
        if self.is_local:
            with suppress(OSError):
                self.local_path(path).parent.rmdir()

    def chunks(self, path: str, etag: str | None = None) -> Iterator[bytes]:
        """Yield an object's bytes; with `etag`, fail if it is no longer that object.

        A connection that breaks is taken up where it was, by obstore, if the object is the same.
        """
        answer = self._do(path, lambda: obstore.get(self._store, self._key(path)))
        if etag is not None and not self.is_local and answer.meta["e_tag"] != etag:
            raise Failure(
                Reason.STORAGE_UNAVAILABLE, f"{self.uri}/{path} changed while it was read"
            )
        with self._errors(path):
            stream = iter(answer.stream(min_chunk_size=CHUNK_BYTES))
            while True:
                with waiting(REQUEST_SECONDS):
                    chunk = next(stream, None)
                if chunk is None:
                    return
                yield bytes(chunk)

    def read(self, path: str) -> bytes:
        """Return an object's bytes."""
        return b"".join(self.chunks(path))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes of an object from `start` on, or what there is of them."""
        key = self._key(path)
        return self._do(
            path, lambda: bytes(obstore.get_range(self._store, key, start=start, length=length))
        )

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and ETag; None if it does not exist."""

        def get() -> tuple[bytes, str]:
            answer = obstore.get(self._store, self._key(path))
            data = bytes(answer.bytes())
            return data, sha256_digest(data) if self.is_local else str(answer.meta["e_tag"])

        try:
            return self._do(path, get, missing_is_failure=False)
        except FileNotFoundError:
            return None

    def upload(self, path: str, source: Path) -> None:
        """Write a file; a large one in parts, several at a time."""
        parts = max(CHUNK_BYTES, -(-source.stat().st_size // MOST_PARTS))
        key = self._key(path)
        self._do(path, lambda: obstore.put(self._store, key, source, chunk_size=parts))

    def write(self, path: str, data: bytes) -> None:
        """Write bytes."""
        self._do(path, lambda: obstore.put(self._store, self._key(path), data))

    def write_if(self, path: str, data: bytes, etag: str | None) -> str:
        """Write if the object still has `etag`, or does not exist yet if that is None.

        Returns the new ETag. Raises `Conflict` when someone else wrote in between.
        """
        if self.is_local:
            return self._write_local_if(path, data, etag)
        mode: Any = "create" if etag is None else {"e_tag": etag}
        try:
            return self._do(
                path,
                lambda: str(obstore.put(self._store, self._key(path), data, mode=mode)["e_tag"]),
                missing_is_failure=etag is None,
                conditional=True,
            )
        except (PreconditionError, AlreadyExistsError, FileNotFoundError):
            raise Conflict(path) from None  # their text holds the store's whole answer

    def _write_local_if(self, path: str, data: bytes, etag: str | None) -> str:
        target = self.local_path(path)
        with self._errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with alone(Path(f"{target}.lock")):
                present = sha256_digest(target.read_bytes()) if target.exists() else None
                if present != etag:
                    raise Conflict(path)
                self.write(path, data)
        return sha256_digest(data)

    def _do(
        self,
        path: str,
        request: Callable[[], T],
        *,
        missing_is_failure: bool = True,
        conditional: bool = False,
    ) -> T:
        """Make a request; make it again where other keys or another try can mend it."""
        tries = 1
        while True:
            keys = self._keys.read() if self._keys else None
            try:
                with self._errors(path, missing_is_failure, conditional), waiting(REQUEST_SECONDS):
                    return request()
            except Altered:
                if tries == TRIES:
                    raise
                log.warning("%s/%s arrived altered, sending it again", self.uri, path)
            except Failure as failure:
                if self._keys is not None:
                    self._keys.read()  # they may have gone bad while obstore asked for them
                if tries == TRIES or keys is None or not self._renewed(keys, failure):
                    raise
                log.info("going on with the renewed keys of %s", self.role.credentials_field)
            tries += 1

    def _renewed(self, used: Keys, failure: Failure) -> bool:
        """Tell whether other keys are there than were refused; wait for them if they expired."""
        if failure.reason is not Reason.ACCESS_DENIED or self._keys is None:
            return False
        wait = ROTATION_SECONDS if isinstance(failure, Expired) else 0
        deadline = time.monotonic() + wait
        while self._keys.read() == used:
            if time.monotonic() >= deadline:
                return False
            rest(1)
        return True

    def _errors(
        self, path: str, missing_is_failure: bool = True, conditional: bool = False
    ) -> AbstractContextManager[None]:
        uri = "/".join(part for part in (self.uri, path) if part)
        place = Place(uri, self.role.field, self.role.not_found, self._keys is not None)
        return translated(place, missing_is_failure=missing_is_failure, conditional=conditional)

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self._root, path) if part)


def split_file_uri(uri: str) -> tuple[str, str]:
    """Return the URI of a file's directory and the file's name."""
    directory, _, name = uri.rstrip("/").rpartition("/")
    return directory, name


def hash_file(path: Path) -> str:
    """Return `sha256:<hex>` of a file on disk."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

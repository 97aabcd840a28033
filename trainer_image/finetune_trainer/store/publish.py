"""The way of an adapter into the bucket: claim, upload, manifest last, read back, commit.

Object stores have no locks. Each start of an attempt writes below a prefix of its own and, once its
inputs are settled, claims `latest.json` by a conditional PUT whose ETag it keeps. Its one commit is
If-Match on that ETag: when a later claim has been made, the commit loses and nothing readers see
has changed.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.artifact import (
    LATEST,
    MANIFEST,
    VERSION,
    ArtifactPointer,
    Claim,
    Latest,
    Manifest,
    Provenance,
    RunIdentity,
    Serving,
    TrainingSummary,
    artifact_path,
)
from finetune_contract.layout import JobRef, Layout
from finetune_contract.reasons import Reason
from finetune_contract.resolved import RoleCoverage
from finetune_contract.result import PublishedArtifact
from finetune_trainer.process.errors import Conflict, Failure
from finetune_trainer.store.artifacts import read_latest, read_located, verify
from finetune_trainer.store.storage import OnBytes, Role, Store
from finetune_trainer.store.transfer import upload_all

log = logging.getLogger(__name__)

CLAIM_TRIES = 5
STALE_ETAG = '"00000000000000000000000000000000"'


def open_output(layout: Layout) -> Store:
    """Return the store of the output URI, unclaimed; raise Superseded if a later attempt has it."""
    store = _store(layout)
    _refuse_later(read_latest(store), layout)
    return store


def find_published(
    store: Store, provenance: Provenance, on_bytes: OnBytes
) -> PublishedArtifact | None:
    """Return the artifact that latest.json names, if it is whole and made from the same."""
    found = read_latest(store)
    pointer = found[0].artifact if found else None
    if pointer is None or pointer.provenance != provenance:
        return None
    try:
        manifest = read_located(store, pointer.path, pointer.digest).manifest
        verify(store, pointer.path, manifest, on_bytes)
    except Failure as failure:
        if failure.reason is not Reason.VERIFICATION_FAILED:
            raise
        log.warning("an equal artifact is there but damaged, training again: %s", failure)
        return None
    return _published(store, pointer.path, manifest)


@dataclass(frozen=True)
class Output:
    """An attempt's claim on an output URI."""

    store: Store
    job: JobRef
    attempt: int
    latest: Latest
    etag: str

    @classmethod
    def claim(cls, layout: Layout, store: Store | None = None) -> Output:
        """Claim latest.json, keeping the artifact it names.

        Raises Superseded if a later attempt of the job holds it, StorageUnsupported if the store
        does not honour conditional writes.
        """
        store = store or _store(layout)
        claim = Claim(uid=layout.job.uid, attempt=layout.attempt, run=secrets.token_hex(8))
        for _ in range(CLAIM_TRIES):
            found = read_latest(store)
            _refuse_later(found, layout)
            latest = Latest(
                version=VERSION, claim=claim, artifact=found[0].artifact if found else None
            )
            data = latest.to_json().encode()
            try:
                etag = store.write_if(LATEST, data, found[1] if found else None)
            except Conflict:
                continue
            _probe(store, data)
            return cls(store, layout.job, layout.attempt, latest, etag)
        raise Failure(
            Reason.STORAGE_UNAVAILABLE,
            f"{store.uri}/{LATEST} is claimed by others all the time; give each job its own "
            "spec.output.uri",
        )

    @property
    def run(self) -> str:
        """Return what tells this start of the attempt from others."""
        return self.latest.claim.run

    @property
    def path(self) -> str:
        """Return the artifact's directory, relative to the output URI."""
        return artifact_path(self.job.uid, self.attempt, self.run)

    def check_claim(self) -> None:
        """Raise Superseded if a later claim has been made."""
        found = read_latest(self.store)
        if found is None or found[1] != self.etag:
            raise _superseded(found[0].claim if found else None)

    def publish(
        self,
        directory: Path,
        provenance: Provenance,
        training: TrainingSummary,
        on_bytes: OnBytes,
        lora: tuple[RoleCoverage, ...] = (),
        serving: Serving | None = None,
        advice: tuple[str, ...] = (),
    ) -> PublishedArtifact:
        """Upload a directory as the artifact, read it back and commit it, if it may be."""
        self.check_claim()
        files = upload_all(self.store, self.path, directory, on_bytes)
        manifest = Manifest(
            version=VERSION,
            run=RunIdentity(name=self.job.name, uid=self.job.uid, attempt=self.attempt),
            provenance=provenance,
            training=training,
            lora=lora,
            serving=serving,
            advice=advice,
            files=files,
        )
        self.store.write(f"{self.path}/{MANIFEST}", manifest.encode())
        self._read_back(manifest, on_bytes)
        self._commit(manifest)
        return _published(self.store, self.path, manifest)

    def _read_back(self, manifest: Manifest, on_bytes: OnBytes) -> None:
        if read_located(self.store, self.path).manifest != manifest:
            raise Failure(
                Reason.VERIFICATION_FAILED,
                f"{self.store.uri}/{self.path}/{MANIFEST} is not what was written",
            )
        verify(self.store, self.path, manifest, on_bytes)

    def _commit(self, manifest: Manifest) -> None:
        pointer = ArtifactPointer(
            path=self.path, digest=manifest.digest(), provenance=manifest.provenance
        )
        committed = self.latest.model_copy(update={"artifact": pointer})
        try:
            self.store.write_if(LATEST, committed.to_json().encode(), self.etag)
        except Conflict as conflict:
            found = read_latest(self.store)
            # A retried request is refused when its first answer was lost: then it is ours.
            if found is None or found[0] != committed:
                raise _superseded(found[0].claim if found else None) from conflict


def _store(layout: Layout) -> Store:
    return Store(layout.output_uri, Role.OUTPUT, layout.credentials.output)


def _refuse_later(found: tuple[Latest, str] | None, ours: Layout) -> None:
    held = found[0].claim if found else None
    if held is not None and held.uid == ours.job.uid and held.attempt > ours.attempt:
        raise _superseded(held)


def _superseded(by: Claim | None) -> Failure:
    who = f"attempt {by.attempt} of the job with uid {by.uid}" if by else "someone who removed it"
    return Failure(Reason.SUPERSEDED, f"{LATEST} of spec.output.uri was claimed by {who}")


def _probe(store: Store, data: bytes) -> None:
    """Write what is there once more under conditions that do not hold; a store must refuse."""
    for etag in (None, STALE_ETAG):
        try:
            store.write_if(LATEST, data, etag)
        except Conflict:
            continue
        raise Failure(
            Reason.STORAGE_UNSUPPORTED,
            f"{store.uri}: the store ignores If-Match or If-None-Match on PUT, so two attempts "
            "could overwrite each other's result; use another store for spec.output.uri",
        )


def _published(store: Store, path: str, manifest: Manifest) -> PublishedArtifact:
    return PublishedArtifact(
        uri=f"{store.uri}/{path}", digest=manifest.digest(), bytes=manifest.total_bytes
    )

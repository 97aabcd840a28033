"""The checkpoints of a job in its bucket: where they are, and what their manifests say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_contract.artifact import MANIFEST, job_path
from finetune_contract.checkpoint import CheckpointManifest, CheckpointRef, checkpoint_path
from finetune_contract.layout import Layout
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.storage import Store

DAMAGED = (Reason.VERIFICATION_FAILED, Reason.OUTPUT_NOT_FOUND)


@dataclass(frozen=True, order=True)
class Place:
    """Where a checkpoint is; later ones are greater. `run` tells an attempt's starts apart."""

    attempt: int
    step: int
    run: str


class Archive:
    """The checkpoints that an attempt may go on from: its own and those of attempts before it."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self._store = store
        self._uid = layout.job.uid
        self._attempt = layout.attempt

    def path(self, place: Place) -> str:
        """Return a checkpoint's directory, relative to the store."""
        return checkpoint_path(self._uid, place.attempt, place.run, place.step)

    def ref(self, place: Place) -> CheckpointRef:
        """Return what Progress tells of a checkpoint."""
        uri = f"{self._store.uri}/{self.path(place)}"
        return CheckpointRef(attempt=place.attempt, step=place.step, uri=uri)

    def listed(self) -> tuple[list[Place], list[Place]]:
        """Return where there are checkpoints, newest first: complete ones, and torn ones."""
        pattern = re.compile(
            re.escape(job_path(self._uid)) + r"/a(\d+)/([0-9a-f]+)/checkpoints/(\d+)/(.+)"
        )
        found: dict[Place, set[str]] = {}
        for path in self._paths():
            if (match := pattern.fullmatch(path)) and int(match[1]) <= self._attempt:
                place = Place(int(match[1]), int(match[3]), match[2])
                found.setdefault(place, set()).add(match[4])
        places = sorted(found, reverse=True)
        return (
            [place for place in places if MANIFEST in found[place]],
            [place for place in places if MANIFEST not in found[place]],
        )

    def manifest(self, place: Place) -> CheckpointManifest:
        """Return a checkpoint's manifest; raise a Failure that is DAMAGED if there is none."""
        data = self._store.read(f"{self.path(place)}/{MANIFEST}")
        try:
            return CheckpointManifest.model_validate_json(data)
        except ValidationError as error:
            raise Failure(
                Reason.VERIFICATION_FAILED, "its manifest is not one of this version"
            ) from error

    def whole(self, place: Place) -> CheckpointManifest | None:
        """Return a checkpoint's manifest; None if it is damaged."""
        try:
            return self.manifest(place)
        except Failure as failure:
            if failure.reason not in DAMAGED:
                raise
            return None

    def delete(self, place: Place) -> None:
        """Remove a checkpoint, its manifest first: without it the rest does not count."""
        base = self.path(place)
        self._store.delete(f"{base}/{MANIFEST}")
        for path in self._store.paths(base):
            self._store.delete(path)

    def _paths(self) -> list[str]:
        try:
            return list(self._store.paths(job_path(self._uid)))
        except Failure as failure:
            if failure.reason is not Reason.OUTPUT_NOT_FOUND:
                raise
            return []  # some stores make a bucket when it is first written to

"""Checkpoints in the bucket: written behind the training's back, found again at the next start.

Rank 0's. Files go first and the manifest last, so a checkpoint that was cut short does not exist. A
store that fails costs that checkpoint: it is told in the log, and the next time is a new one.
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from pydantic import ValidationError
from safetensors import SafetensorError

from finetune_contract.artifact import MANIFEST, FileEntry, Provenance, attempt_path
from finetune_contract.checkpoint import (
    VERSION,
    CheckpointManifest,
    CheckpointRef,
    checkpoint_path,
)
from finetune_contract.layout import Layout
from finetune_contract.reasons import Reason
from finetune_trainer.artifacts import download
from finetune_trainer.ending import explain
from finetune_trainer.errors import Failure
from finetune_trainer.publish import Output
from finetune_trainer.snapshot import Snapshot
from finetune_trainer.storage import hash_file

log = logging.getLogger(__name__)

Place = tuple[int, int]  # attempt, step
DAMAGED = (Reason.VERIFICATION_FAILED, Reason.OUTPUT_NOT_FOUND)


class Checkpoints:
    """The checkpoints of one job: this attempt's and those of the attempts before it."""

    def __init__(
        self,
        output: Output,
        provenance: Provenance,
        layout: Layout,
        on_complete: Callable[[CheckpointRef], None],
    ) -> None:
        self._output = output
        self._store = output.store
        self._provenance = provenance
        self._layout = layout
        self._on_complete = on_complete
        self.latest: CheckpointRef | None = None  # complete, and known to this attempt
        self._writer: Thread | None = None
        self._last_step = 0
        self._last_time = time.monotonic()

    def due(self, step: int) -> bool:
        """Tell whether it is time after `step` steps; not while the one before is being written."""
        if step == self._last_step or (self._writer is not None and self._writer.is_alive()):
            return False
        policy = self._layout.checkpoint
        steps, minutes = policy.every_steps, policy.every_minutes
        passed = time.monotonic() - self._last_time
        return (steps is not None and step // steps > self._last_step // steps) or (
            minutes is not None and passed >= 60 * minutes
        )

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint, once the one before is written."""
        self.wait()
        self._last_step, self._last_time = snapshot.state.step, time.monotonic()
        self._writer = Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._writer.start()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._writer is not None:
            self._writer.join()

    def newest(self, fits: Callable[[Snapshot], bool]) -> Snapshot | None:
        """Return the newest complete checkpoint that is whole, of the same provenance, and fits.

        Those passed over are named in the log with the reason. Minutes count from here.
        """
        self._last_time = time.monotonic()
        complete, _ = self._listed()
        for attempt, step in complete:
            base = checkpoint_path(self._layout.job.uid, attempt, step)
            try:
                snapshot = self._read(base, fits)
            except Failure as failure:
                if failure.reason not in DAMAGED:
                    raise
                log.warning("passed over checkpoint %s: %s", base, failure.message)
                continue
            self._last_step = step
            self._complete(self._ref(attempt, step))
            return snapshot
        return None

    def _write(self, snapshot: Snapshot) -> None:
        step, began = snapshot.state.step, time.monotonic()
        try:
            self._upload(snapshot)
        # A run must not end, nor stop saving unnoticed, for whatever befalls one checkpoint.
        except Exception as error:  # noqa: BLE001 - the thread's edge
            log.warning(
                "checkpoint of step %d failed, training goes on: %s", step, explain(error).message
            )
            return
        self._complete(self._ref(self._layout.attempt, step))
        log.info("checkpoint of step %d in %.1f s", step, time.monotonic() - began)
        try:
            self._sweep(step)
        except Exception as error:  # noqa: BLE001 - likewise
            log.warning("old checkpoints are still there: %s", explain(error).message)

    def _complete(self, ref: CheckpointRef) -> None:
        self.latest = ref
        self._on_complete(ref)

    def _upload(self, snapshot: Snapshot) -> None:
        layout, files = self._layout, []
        base = checkpoint_path(layout.job.uid, layout.attempt, snapshot.state.step)
        self._store.delete(f"{base}/{MANIFEST}")  # of an earlier start of this attempt
        with tempfile.TemporaryDirectory(dir=layout.scratch_dir, prefix="checkpoint-") as name:
            snapshot.save(Path(name))
            for path in sorted(Path(name).iterdir()):
                size = path.stat().st_size
                files.append(FileEntry(path=path.name, sha256=hash_file(path), bytes=size))
                self._store.upload(f"{base}/{path.name}", path)
        manifest = CheckpointManifest(
            version=VERSION,
            attempt=layout.attempt,
            provenance=self._provenance,
            state=snapshot.state,
            files=tuple(files),
        )
        self._store.write(f"{base}/{MANIFEST}", manifest.encode())

    def _read(self, base: str, fits: Callable[[Snapshot], bool]) -> Snapshot:
        try:
            manifest = CheckpointManifest.model_validate_json(
                self._store.read(f"{base}/{MANIFEST}")
            )
        except ValidationError as error:
            raise _damaged("its manifest is not one of this version") from error
        if manifest.provenance != self._provenance:
            raise _damaged(f"its {_difference(manifest.provenance, self._provenance)} is another")
        scratch = self._layout.scratch_dir
        with tempfile.TemporaryDirectory(dir=scratch, prefix="checkpoint-") as name:
            for entry in manifest.files:
                if Path(entry.path).name != entry.path:
                    raise _damaged(f"its manifest names a file outside it: {entry.path}")
                download(self._store, base, entry, Path(name, entry.path))
            try:
                snapshot = Snapshot.load(manifest.state, Path(name))
            except (SafetensorError, FileNotFoundError, KeyError) as error:
                raise _damaged("its files are not those of a checkpoint") from error
        if not fits(snapshot):
            raise _damaged("its tensors are not those of the model")
        return snapshot

    def _sweep(self, written: int) -> None:
        """Delete complete checkpoints beyond `keep`, and what is left of those cut short.

        Never what a later attempt has: it lists and reads while this one may still be ending.
        """
        if not self._output.is_claimed():
            return
        complete, torn = self._listed()
        for place in complete[self._layout.checkpoint.keep :]:
            self._delete(place)
        for place in torn:
            if place < (self._layout.attempt, written):
                self._delete(place)

    def _delete(self, place: Place) -> None:
        base = checkpoint_path(self._layout.job.uid, *place)
        self._store.delete(f"{base}/{MANIFEST}")
        for path in self._store.paths(base):
            self._store.delete(path)

    def _listed(self) -> tuple[list[Place], list[Place]]:
        """Return where there are checkpoints, newest first: complete ones, and torn ones."""
        runs = re.escape(attempt_path(self._layout.job.uid, 0).removesuffix("a0"))
        pattern = re.compile(rf"{runs}a(\d+)/checkpoints/(\d+)/(.+)")
        found: dict[Place, set[str]] = {}
        for path in self._store.paths(f"runs/{self._layout.job.uid}"):
            if (match := pattern.fullmatch(path)) and int(match[1]) <= self._layout.attempt:
                found.setdefault((int(match[1]), int(match[2])), set()).add(match[3])
        places = sorted(found, reverse=True)
        return (
            [place for place in places if MANIFEST in found[place]],
            [place for place in places if MANIFEST not in found[place]],
        )

    def _ref(self, attempt: int, step: int) -> CheckpointRef:
        base = checkpoint_path(self._layout.job.uid, attempt, step)
        return CheckpointRef(attempt=attempt, step=step, uri=f"{self._store.uri}/{base}")


def _difference(theirs: Provenance, ours: Provenance) -> str:
    fields = [n for n in Provenance.model_fields if getattr(theirs, n) != getattr(ours, n)]
    return ", ".join(fields)


def _damaged(message: str) -> Failure:
    return Failure(Reason.VERIFICATION_FAILED, message)

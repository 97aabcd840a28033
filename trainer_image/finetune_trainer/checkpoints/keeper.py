"""Checkpoints in the bucket: written behind the training's back, found again at the next start.

Rank 0's. Files go first and the manifest last, so a checkpoint that was cut short does not exist. A
store that fails costs that checkpoint: it is told, and the next time is a new one. Where another
has claimed the output none is written any more.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from safetensors import SafetensorError

from finetune_contract.artifact import MANIFEST, Provenance
from finetune_contract.checkpoint import VERSION, CheckpointManifest, CheckpointRef
from finetune_contract.layout import Layout
from finetune_contract.reasons import Reason
from finetune_trainer.checkpoints.archive import DAMAGED, Archive, Place
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.process.ending import explain
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.artifacts import download
from finetune_trainer.store.publish import Output
from finetune_trainer.store.storage import OnBytes
from finetune_trainer.store.transfer import upload_all

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one job: this attempt's and those of the attempts before it.

    `on_trouble` is told what fails while training goes on, and None once it no longer does.
    """

    def __init__(
        self,
        output: Output,
        provenance: Provenance,
        layout: Layout,
        on_complete: Callable[[CheckpointRef], None],
        on_trouble: Callable[[str | None], None] = lambda note: None,
        clock: Callable[[], float] = time.monotonic,
        on_bytes: OnBytes = lambda count: None,
    ) -> None:
        self._output = output
        self._store = output.store
        self._provenance = provenance
        self._layout = layout
        self._archive = Archive(output.store, layout)
        self._on_complete = on_complete
        self._on_trouble = on_trouble
        self._on_bytes = on_bytes
        self._clock = clock
        self.latest: CheckpointRef | None = None  # complete, and known to this attempt
        self.superseded: Failure | None = None  # once it is seen that the claim is lost
        self._writer: Thread | None = None
        self._last_step = 0
        self._last_time = self._clock()

    def due(self, step: int) -> bool:
        """Tell whether it is time after `step` steps; not while the one before is being written."""
        if step == self._last_step or (self._writer is not None and self._writer.is_alive()):
            return False
        policy = self._layout.checkpoint
        steps, minutes = policy.every_steps, policy.every_minutes
        passed = self._clock() - self._last_time
        return (steps is not None and step // steps > self._last_step // steps) or (
            minutes is not None and passed >= 60 * minutes
        )

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint, once the one before is written."""
        self.wait()
        self._last_step, self._last_time = snapshot.state.step, self._clock()
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
        self._last_time = self._clock()
        complete, _ = self._archive.listed()
        for place in complete:
            try:
                snapshot = self._read(place, fits)
            except Failure as failure:
                if failure.reason not in DAMAGED:
                    raise
                path = self._archive.path(place)
                log.warning("passed over checkpoint %s: %s", path, failure.message)
                continue
            self._last_step = place.step
            self._complete(place)
            return snapshot
        return None

    def _write(self, snapshot: Snapshot) -> None:
        step, began = snapshot.state.step, self._clock()
        place = Place(self._layout.attempt, step, self._output.run)
        try:
            self._output.check_claim()
            self._upload(snapshot, self._archive.path(place))
        # A run must not end, nor stop saving unnoticed, for whatever befalls one checkpoint.
        # A panic of a library in Rust is no Exception.
        except BaseException as error:  # noqa: BLE001 - the thread's edge
            self._failed(f"checkpoint of step {step} failed, training goes on", error)
            return
        self._complete(place)
        self._on_trouble(None)
        log.info("checkpoint of step %d in %.1f s", step, self._clock() - began)
        try:
            self._sweep(place)
        except BaseException as error:  # noqa: BLE001 - likewise
            self._failed("old checkpoints are still there", error)

    def _failed(self, what: str, error: BaseException) -> None:
        failure = explain(error)
        if failure.reason is Reason.SUPERSEDED:
            self.superseded = failure
            return
        note = f"{what}: {failure.message}"
        log.warning("%s", note)
        self._on_trouble(note)

    def _complete(self, place: Place) -> None:
        self.latest = self._archive.ref(place)
        self._on_complete(self.latest)

    def _upload(self, snapshot: Snapshot, base: str) -> None:
        layout = self._layout
        with tempfile.TemporaryDirectory(dir=layout.scratch_dir, prefix="checkpoint-") as name:
            snapshot.save(Path(name))
            files = upload_all(self._store, base, Path(name), self._on_bytes)
        manifest = CheckpointManifest(
            version=VERSION,
            attempt=layout.attempt,
            provenance=self._provenance,
            state=snapshot.state,
            files=files,
        )
        self._store.write(f"{base}/{MANIFEST}", manifest.encode())

    def _read(self, place: Place, fits: Callable[[Snapshot], bool]) -> Snapshot:
        manifest = self._archive.manifest(place)
        if manifest.provenance != self._provenance:
            raise _damaged(f"its {_difference(manifest.provenance, self._provenance)} is another")
        scratch = self._layout.scratch_dir
        with tempfile.TemporaryDirectory(dir=scratch, prefix="checkpoint-") as name:
            for entry in manifest.files:
                if Path(entry.path).name != entry.path:
                    raise _damaged(f"its manifest names a file outside it: {entry.path}")
                download(self._store, self._archive.path(place), entry, Path(name, entry.path))
            try:
                snapshot = Snapshot.load(manifest.state, Path(name))
            except (SafetensorError, FileNotFoundError, KeyError) as error:
                raise _damaged("its files are not those of a checkpoint") from error
        if not fits(snapshot):
            raise _damaged("its tensors are not those of the model")
        return snapshot

    def _sweep(self, written: Place) -> None:
        """Delete complete checkpoints beyond `keep`, and what is left of those cut short.

        Never those of another provenance, nor what a later attempt has: it lists and reads while
        this one may still be ending.
        """
        self._output.check_claim()
        complete, torn = self._archive.listed()
        manifests = {place: self._archive.whole(place) for place in complete}
        ours = [p for p, m in manifests.items() if m and m.provenance == self._provenance]
        for place in ours[self._layout.checkpoint.keep :]:
            self._archive.delete(place)
        for place in torn:
            if place < written:
                self._archive.delete(place)


def _difference(theirs: Provenance, ours: Provenance) -> str:
    fields = [n for n in Provenance.model_fields if getattr(theirs, n) != getattr(ours, n)]
    return ", ".join(fields)


def _damaged(message: str) -> Failure:
    return Failure(Reason.VERIFICATION_FAILED, message)

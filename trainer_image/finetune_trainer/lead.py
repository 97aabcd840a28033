"""What rank 0 does alone: start, keep checkpoints and curves, publish.

The other ranks wait for each result, or end with the same failure (`Ranks.lead`).
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune_contract.artifact import (
    DatasetIdentity,
    Provenance,
    RewardIdentity,
    TrainingSummary,
)
from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.model import sha256_digest
from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource, Export
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_trainer.adapter.export import export
from finetune_trainer.adapter.initial import check_initial
from finetune_trainer.checkpoints.inputs import newest_checkpoint, refuse_changed
from finetune_trainer.checkpoints.keeper import Checkpoints
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.course.progress import Reporter
from finetune_trainer.course.report.page import RunFacts
from finetune_trainer.course.telemetry import Telemetry
from finetune_trainer.data.check import DataFile
from finetune_trainer.model.chat_template import with_template
from finetune_trainer.process.distributed import Led
from finetune_trainer.process.ending import explain
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import rest
from finetune_trainer.store.data_files import fetch_parts
from finetune_trainer.store.publish import Output, find_published, open_output
from finetune_trainer.store.sources import ModelSource, fetch_model, read_template, resolve_model
from finetune_trainer.store.storage import OnBytes

log = logging.getLogger(__name__)

# With a store that is full or away when all is trained; then the attempt ends, and the next one
# goes on from the newest checkpoint.
PATIENCE_SECONDS = 1800.0
PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class Start:
    """What is known before anything heavy: the inputs, and the artifact if it is there already."""

    model: ModelSource
    files: tuple[DataFile, ...]
    eval_files: tuple[DataFile, ...]
    provenance: Provenance
    finished: PublishedArtifact | None


def begin(
    config: RunConfig, reporter: Reporter, identities: tuple[RewardIdentity, ...] = ()
) -> Start:
    """Resolve the inputs as the job began with, look whether the same was made before.

    `identities` are the method's.
    """
    recipe, layout = config.recipe, config.layout
    store = open_output(layout)
    saved = newest_checkpoint(store, config)
    reporter.begin(Phase.DOWNLOAD)
    model = resolve_model(
        recipe.model,
        layout.credentials.model,
        pinned=saved.provenance.model if saved else None,
        cache=_model_cache(config),
    )
    template = read_template(
        recipe.model.chat_template, layout.credentials.model, layout.chat_template
    )
    initial = check_initial(recipe, model.identity, layout.credentials.model)
    files = tuple(_fetch_data(config, source, reporter) for source in recipe.data.train)
    eval_files = tuple(_fetch_data(config, source, reporter) for source in recipe.data.eval)
    provenance = Provenance(
        recipe_digest=recipe.digest(),
        model=model.identity,
        datasets=tuple(map(_identity, files)),
        eval_datasets=tuple(map(_identity, eval_files)),
        init_from=initial,
        rewards=identities,
        chat_template=None if template is None else sha256_digest(template.encode()),
    )
    began_with = saved.provenance if saved else provenance
    finished = find_published(store, began_with, reporter.advance)
    if finished is None:
        refuse_changed(saved, provenance)
    model = replace(model, initial=initial, template=template)
    return Start(model, files, eval_files, provenance, finished)


class Lead:
    """Rank 0's part of a run from the claim of its output on: another's with the same ends."""

    def __init__(
        self, config: RunConfig, reporter: Reporter, start: Start, telemetry: Telemetry
    ) -> None:
        self._config = config
        self._reporter = reporter
        self._start = start
        self._output = Output.claim(config.layout)
        noted = partial(reporter.noted, "checkpoints")
        self.checkpoints = Checkpoints(
            *(self._output, start.provenance, config.layout, reporter.checkpointed, noted),
            on_bytes=lambda count: reporter.stirred(),
        )
        self.telemetry = telemetry

    def resume(self, fits: Callable[[Snapshot], bool]) -> Snapshot:
        """Return the newest checkpoint that fits, else the beginning; go on with its curves."""
        snapshot = self.checkpoints.newest(fits) or Snapshot.beginning()
        state = snapshot.state
        self.telemetry.go_on(run_id=state.tracking_run, history=snapshot.history, step=state.step)
        return snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint, with the curves so far."""
        state = snapshot.state.model_copy(update={"tracking_run": self.telemetry.run_id})
        self.checkpoints.save(replace(snapshot, state=state, history=self.telemetry.snapshot()))

    def saved(self) -> CheckpointRef | None:
        """Return the newest complete checkpoint, once none is being written.

        Raises Superseded if one has seen that another claimed the output.
        """
        self.checkpoints.wait()
        if self.checkpoints.superseded is not None:
            raise self.checkpoints.superseded
        return self.checkpoints.latest

    def publish(
        self, model: Any, summary: TrainingSummary, skipped: Path | None = None
    ) -> PublishedArtifact:
        """Write, upload, read back and commit the artifact; `skipped` lists rows left out."""
        recipe, provenance = self._config.recipe, self._start.provenance
        resolved = self._reporter.latest.plan
        coverage, advice = (resolved.lora, resolved.advice) if resolved is not None else ((), ())
        scratch = self._config.layout.scratch_dir
        with tempfile.TemporaryDirectory(dir=scratch, prefix="artifact-") as name:
            directory = Path(name)
            # Here since it was loaded: no phase of its own.
            base = _on_disk(self._config, self._start.model, weights=Export.MERGED in recipe.export)
            tokenizer = tokenizer_directory(self._config, self._start.model, base)
            serving = export(
                *(model, recipe, provenance, summary, coverage, advice),
                *(base, tokenizer, directory),
            )
            facts = RunFacts(provenance, summary, resolved)
            for path, file in self.telemetry.files(facts).items():
                (directory / path).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, directory / path)
            if skipped is not None:
                shutil.copyfile(skipped, directory / skipped.name)
            size = sum(path.stat().st_size for path in directory.rglob("*"))

            def publish() -> PublishedArtifact:
                self._reporter.begin(Phase.PUBLISH, 2 * size)  # written, then read back
                return self._output.publish(
                    *(directory, provenance, summary, self._reporter.advance),
                    *(coverage, serving, advice),
                )

            published = patiently(publish, partial(self._reporter.noted, "publishing"))
        log.info("published %s %s", published.uri, published.digest)
        return published


def patiently(
    publish: Callable[[], PublishedArtifact],
    noted: Callable[[str | None], None],
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> PublishedArtifact:
    """Return what is published, once the store has room for it and serves: what was trained since
    the newest checkpoint is in this process alone."""
    deadline = clock() + PATIENCE_SECONDS
    while True:
        try:
            published = publish()
        except Failure as failure:
            if failure.reason is not Reason.STORAGE_UNAVAILABLE or clock() >= deadline:
                raise
            note = f"publishing waits: {failure.message}"
            log.warning("%s", note)
            noted(note)
            rest(PAUSE_SECONDS, sleep)
        else:
            noted(None)
            return published


@contextmanager
def telling(lead: Led[Lead]) -> Iterator[None]:
    """Tell the tracker how what is done here ended."""
    reason = Reason.SUCCEEDED
    try:
        yield
    except BaseException as error:
        reason = explain(error).reason
        raise
    finally:
        if lead.mine is not None:
            lead.mine.telemetry.close(reason)


def fetch(config: RunConfig, model: ModelSource, reporter: Reporter, *, weights: bool) -> Path:
    """Return the directory of the model on this machine, with or without its weights."""
    files = model.files if weights else model.small_files
    reporter.begin(Phase.DOWNLOAD, sum(file.size for file in files))
    return _on_disk(config, model, weights=weights, on_bytes=reporter.advance)


def tokenizer_directory(config: RunConfig, model: ModelSource, directory: Path) -> Path:
    """Return the directory of the model's tokenizer, which has the job's own chat template."""
    settings = config.recipe.model.chat_template_kwargs or {}
    return with_template(directory, model.template, settings, Path(config.layout.scratch_dir))


def _on_disk(
    config: RunConfig, model: ModelSource, *, weights: bool, on_bytes: OnBytes = lambda count: None
) -> Path:
    files = model.files if weights else model.small_files
    credentials, checked = config.layout.credentials.model, Path(config.layout.scratch_dir)
    return fetch_model(model, files, _model_cache(config), credentials, on_bytes, checked)


def _model_cache(config: RunConfig) -> Path:
    return Path(config.layout.cache_dir or config.layout.scratch_dir, "models")


def _fetch_data(config: RunConfig, source: DataSource, reporter: Reporter) -> DataFile:
    directory = Path(config.layout.scratch_dir, "data")
    parts = fetch_parts(source, directory, config.layout.credentials.data, reporter.advance)
    return DataFile.joined(source.uri, parts, source.format, source.file_format)


def _identity(file: DataFile) -> DatasetIdentity:
    return DatasetIdentity(uri=file.uri, sha256=file.sha256, rows=file.lines)

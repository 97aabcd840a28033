"""What rank 0 does alone: start, keep checkpoints and curves, publish.

The other ranks wait for each result, or end with the same failure (`Ranks.lead`).
"""

from __future__ import annotations

import logging
import shutil
import tempfile
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
from finetune_contract.checkpoint import CheckpointRef, Evaluation
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
from finetune_trainer.course.telemetry import StepRecord, Telemetry
from finetune_trainer.data.check import DataFile
from finetune_trainer.process.ending import explain
from finetune_trainer.store.publish import Output, find_published, open_output
from finetune_trainer.store.sources import ModelSource, fetch_data, fetch_model, resolve_model
from finetune_trainer.store.storage import OnBytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What is known before anything heavy: the model, and the artifact if it is there already."""

    model: ModelSource
    files: tuple[DataFile, ...]
    eval_files: tuple[DataFile, ...]
    finished: PublishedArtifact | None


class Lead:
    """Rank 0's part of a run."""

    _output: Output
    _model: ModelSource
    _provenance: Provenance
    _checkpoints: Checkpoints | None = None
    _telemetry: Telemetry | None = None

    def __init__(self, config: RunConfig, reporter: Reporter) -> None:
        self._config = config
        self._reporter = reporter

    def start(self, rewards: tuple[RewardIdentity, ...] = ()) -> Start:
        """Resolve the inputs as the job began with, look whether the same was made before."""
        recipe, layout = self._config.recipe, self._config.layout
        store = open_output(layout)
        saved = newest_checkpoint(store, self._config)
        self._reporter.begin(Phase.DOWNLOAD)
        model = resolve_model(
            recipe.model,
            layout.credentials.model,
            pinned=saved.provenance.model if saved else None,
            cache=_model_cache(self._config),
        )
        initial = check_initial(recipe, model.identity, layout.credentials.model)
        self._model = replace(model, initial=initial)
        files = tuple(self._fetch_data(source) for source in recipe.data.train)
        eval_files = tuple(self._fetch_data(source) for source in recipe.data.eval)
        self._provenance = Provenance(
            recipe_digest=recipe.digest(),
            model=self._model.identity,
            datasets=tuple(map(_identity, files)),
            eval_datasets=tuple(map(_identity, eval_files)),
            init_from=initial,
            rewards=rewards,
        )
        began_with = saved.provenance if saved else self._provenance
        finished = find_published(store, began_with, self._reporter.advance)
        if finished is None:
            refuse_changed(saved, self._provenance)
        return Start(self._model, files, eval_files, finished)

    def claim(self) -> None:
        """Claim the output: from here on another job's run with the same output ends."""
        layout, reporter = self._config.layout, self._reporter
        self._output = Output.claim(layout)
        noted = partial(reporter.noted, "checkpoints")
        self._checkpoints = Checkpoints(
            self._output, self._provenance, layout, reporter.checkpointed, noted
        )

    def resume(self, fits: Callable[[Snapshot], bool]) -> Snapshot:
        """Return the newest checkpoint that fits, else the beginning; go on with its curves."""
        assert self._checkpoints is not None
        snapshot = self._checkpoints.newest(fits) or Snapshot.beginning()
        self._telemetry = Telemetry.start(
            self._config,
            run_id=snapshot.state.tracking_run,
            history=snapshot.history,
            step=snapshot.state.step,
        )
        return snapshot

    def trained(self, record: StepRecord) -> None:
        """Note a finished optimizer step."""
        self._reporter.trained(record)
        if self._telemetry is not None:
            self._telemetry.step(record)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Note an evaluation."""
        self._reporter.evaluated(evaluation.loss)
        if self._telemetry is not None:
            self._telemetry.evaluated(evaluation.step, evaluation.loss)

    def checkpoint_due(self, step: int) -> bool:
        """Tell whether it is time for a checkpoint after `step` steps; by rank 0's clock alone."""
        return self._checkpoints is not None and self._checkpoints.due(step)

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint, with the curves so far."""
        assert self._checkpoints is not None
        assert self._telemetry is not None
        state = snapshot.state.model_copy(update={"tracking_run": self._telemetry.run_id})
        self._checkpoints.save(replace(snapshot, state=state, history=self._telemetry.snapshot()))

    @property
    def superseded(self) -> bool:
        """Tell whether a checkpoint has seen that another claimed the output."""
        return self._checkpoints is not None and self._checkpoints.superseded is not None

    def saved(self) -> CheckpointRef | None:
        """Return the newest complete checkpoint, once none is being written.

        Raises Superseded if one has seen that another claimed the output.
        """
        assert self._checkpoints is not None
        self._checkpoints.wait()
        if self._checkpoints.superseded is not None:
            raise self._checkpoints.superseded
        return self._checkpoints.latest

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the tracker how what is done here ended."""
        reason = Reason.SUCCEEDED
        try:
            yield
        except Exception as error:
            reason = explain(error).reason
            raise
        finally:
            if self._telemetry is not None:
                self._telemetry.close(reason)

    def publish(
        self, model: Any, summary: TrainingSummary, skipped: Path | None = None
    ) -> PublishedArtifact:
        """Write, upload, read back and commit the artifact; `skipped` lists rows left out."""
        scratch = self._config.layout.scratch_dir
        plan = self._reporter.latest.plan
        coverage = plan.lora if plan is not None else ()
        with tempfile.TemporaryDirectory(dir=scratch, prefix="artifact-") as name:
            directory = Path(name)
            merges = Export.MERGED in self._config.recipe.export
            # Here since it was loaded: no phase of its own.
            base = _on_disk(self._config, self._model, weights=merges)
            serving = export(
                model, self._config.recipe, self._provenance, summary, coverage, base, directory
            )
            self._save_curves(summary, directory)
            if skipped is not None:
                shutil.copyfile(skipped, directory / skipped.name)
            size = sum(path.stat().st_size for path in directory.rglob("*"))
            self._reporter.begin(Phase.PUBLISH, 2 * size)  # written, then read back
            published = self._output.publish(
                directory, self._provenance, summary, self._reporter.advance, coverage, serving
            )
        log.info("published %s %s", published.uri, published.digest)
        return published

    def _save_curves(self, summary: TrainingSummary, directory: Path) -> None:
        assert self._telemetry is not None
        facts = RunFacts(self._provenance, summary, self._reporter.latest.plan)
        for name, path in self._telemetry.files(facts).items():
            (directory / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, directory / name)

    def _fetch_data(self, source: DataSource) -> DataFile:
        layout = self._config.layout
        directory = Path(layout.scratch_dir, "data")
        path = fetch_data(source, directory, layout.credentials.data, self._reporter.advance)
        return DataFile(source.uri, path, source.format).counted()


def fetch(config: RunConfig, model: ModelSource, reporter: Reporter, *, weights: bool) -> Path:
    """Return the directory of the model on this machine, with or without its weights."""
    files = model.files if weights else model.small_files
    reporter.begin(Phase.DOWNLOAD, sum(file.size for file in files))
    return _on_disk(config, model, weights=weights, on_bytes=reporter.advance)


def _on_disk(
    config: RunConfig, model: ModelSource, *, weights: bool, on_bytes: OnBytes = lambda count: None
) -> Path:
    files = model.files if weights else model.small_files
    credentials = config.layout.credentials.model
    return fetch_model(model, files, _model_cache(config), credentials, on_bytes)


def _model_cache(config: RunConfig) -> Path:
    return Path(config.layout.cache_dir or config.layout.scratch_dir, "models")


def _identity(file: DataFile) -> DatasetIdentity:
    assert file.sha256 is not None, "counted when it was fetched"
    assert file.lines is not None, "likewise"
    return DatasetIdentity(uri=file.uri, sha256=file.sha256, rows=file.lines)

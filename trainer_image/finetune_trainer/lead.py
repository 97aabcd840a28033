"""What rank 0 does alone: start and publish.

The other ranks wait for each result, or end with the same failure (`Ranks.lead`).
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.artifact import DatasetIdentity, Provenance, TrainingSummary
from finetune_contract.progress import Phase
from finetune_contract.recipe import DataSource
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_trainer.data.dataset import DataFile, count_rows
from finetune_trainer.export import save_adapter, save_card, save_tokenizer
from finetune_trainer.model import load_tokenizer
from finetune_trainer.progress import Reporter
from finetune_trainer.publish import Output
from finetune_trainer.sources import ModelSource, fetch_data, fetch_model, resolve_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What is known before anything heavy: the model, and the artifact if it is there already."""

    model: ModelSource
    files: tuple[DataFile, ...]
    finished: PublishedArtifact | None


class Lead:
    """Rank 0's part of a run."""

    _output: Output
    _model: ModelSource
    _provenance: Provenance

    def __init__(self, config: RunConfig, reporter: Reporter) -> None:
        self._config = config
        self._reporter = reporter

    def start(self) -> Start:
        """Claim the output, resolve the inputs, look whether the same was made before."""
        recipe, layout = self._config.recipe, self._config.layout
        self._output = Output.claim(layout)
        self._reporter.begin(Phase.DOWNLOAD)
        self._model = resolve_model(recipe.model, layout.credentials.model)
        files = tuple(self._fetch_data(source) for source in recipe.data.train)
        self._provenance = Provenance(
            recipe_digest=recipe.digest(),
            model=self._model.identity,
            datasets=tuple(_identity(file) for file in files),
        )
        finished = self._output.finished(self._provenance, self._reporter.advance)
        return Start(self._model, files, finished)

    def publish(self, model: Any, summary: TrainingSummary) -> PublishedArtifact:
        """Write, upload, read back and commit the artifact."""
        scratch = self._config.layout.scratch_dir
        with tempfile.TemporaryDirectory(dir=scratch, prefix="artifact-") as name:
            directory = Path(name)
            save_adapter(model, self._model.identity, directory)
            model_directory = fetch(self._config, self._model, self._reporter, weights=False)
            save_tokenizer(load_tokenizer(model_directory), directory)
            save_card(self._config.recipe, self._provenance, summary, directory)
            size = sum(path.stat().st_size for path in directory.rglob("*"))
            self._reporter.begin(Phase.PUBLISH, 2 * size)  # written, then read back
            published = self._output.publish(
                directory, self._provenance, summary, self._reporter.advance
            )
        log.info("published %s %s", published.uri, published.digest)
        return published

    def _fetch_data(self, source: DataSource) -> DataFile:
        layout = self._config.layout
        directory = Path(layout.scratch_dir, "data")
        path = fetch_data(source, directory, layout.credentials.data, self._reporter.advance)
        return DataFile(source.uri, path, source.format)


def fetch(config: RunConfig, model: ModelSource, reporter: Reporter, *, weights: bool) -> Path:
    """Return the directory of the model on this machine, with or without its weights."""
    files = model.files if weights else model.small_files
    cache = Path(config.layout.cache_dir or config.layout.scratch_dir, "models")
    reporter.begin(Phase.DOWNLOAD, sum(file.size for file in files))
    return fetch_model(model, files, cache, config.layout.credentials.model, reporter.advance)


def _identity(file: DataFile) -> DatasetIdentity:
    rows, digest = count_rows(file.path)
    return DatasetIdentity(uri=file.uri, sha256=digest, rows=rows)

"""The data of a run: checked and encoded once per node, before weights are fetched.

Every rank of a node maps the same files. A fault that any node finds ends all ranks with the same
failure.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource
from finetune_contract.runconfig import RunConfig
from finetune_trainer.data.check import DataFile
from finetune_trainer.data.dataset import Dataset, Index, open_dataset, read_index, read_keys
from finetune_trainer.data.encoding import SKIPPED, Encodes, Encoding, Form, encode_once
from finetune_trainer.data.faults import Kind, in_words
from finetune_trainer.model.tokenizer import load_tokenizer, vocabulary_size
from finetune_trainer.process.errors import Failure
from finetune_trainer.run import Run
from finetune_trainer.store.data_files import fetch_parts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The encoded rows to train and to evaluate on, and the list of rows that were left out."""

    train: Dataset
    eval: Dataset | None
    skipped: int
    skipped_file: Path | None  # JSON Lines: uri, row, reason; on rank 0's disk
    ignored: dict[str, int] = field(default_factory=dict)  # rows with a key that means nothing


def prepare(
    run: Run,
    form: Form,
    model_directory: Path,
    files: Sequence[DataFile],
    eval_files: Sequence[DataFile] = (),
) -> Prepared:
    """Return the data on every rank; all ranks must call it. The files lie on rank 0's disk."""
    config, ranks = run.config, run.ranks
    run.reporter.begin(Phase.PREPARE, sum(file.lines for file in (*files, *eval_files)))
    work = partial(_encode_all, run, form, model_directory, files, eval_files)
    by_rank = ranks.everywhere(lambda: work() if ranks.is_local_lead else None)
    by_node = [made for made in by_rank if made is not None]
    if any(made != by_node[0] for made in by_node):
        raise Failure(
            Reason.DATA_INVALID, "a data file changed while the nodes were reading it (spec.data)"
        )
    data, root = config.recipe.data, _root(config)
    train, *held_out = datasets = [root / name for name in by_node[0]]
    indices = [_index(directory) for directory in datasets]
    skipped = sum(index.skipped for index in indices)
    if ranks.is_lead:
        _log_warnings(indices[0])
    weights = [source.weight for source in data.train]
    return Prepared(
        train=open_dataset(train, weights),
        eval=open_dataset(held_out[0], [1.0] * len(data.eval)) if held_out else None,
        skipped=skipped,
        skipped_file=_list_skipped(config, datasets) if skipped and ranks.is_lead else None,
        ignored=dict(sum((Counter(index.ignored) for index in indices), Counter())),
    )


def _encode_all(
    run: Run,
    form: Form,
    model_directory: Path,
    files: Sequence[DataFile],
    eval_files: Sequence[DataFile],
) -> list[str]:
    """Return the names of the train and the eval dataset, the same on every node.

    The eval data is encoded first: no train row may be among it.
    """
    config, reporter = run.config, run.reporter
    data, root = config.recipe.data, _root(config)
    if not run.ranks.is_lead:
        files = _on_this_node(config, data.train)
        eval_files = _on_this_node(config, data.eval)

    @cache  # not needed where both datasets are there already
    def encoder() -> Encodes:
        tokenizer, known = load_tokenizer(model_directory), vocabulary_size(model_directory)
        return form.encoder(tokenizer, form.longest, known)

    def encoding(files: Sequence[DataFile], against: Path | None) -> Encoding:
        name = None if against is None else against.name
        return Encoding(tuple(files), form, model_directory, data.on_bad_row, name)

    on_eval, eval_keys, eval_lines = None, frozenset[int](), 0
    if eval_files:
        on_eval = encode_once(encoding(eval_files, None), root, encoder, eval_keys, reporter.reach)
        eval_keys, eval_lines = read_keys(on_eval), reporter.latest.done
    train = encode_once(
        encoding(files, on_eval),
        root,
        encoder,
        eval_keys,
        lambda lines: reporter.reach(eval_lines + lines),
    )
    return [made.name for made in (train, on_eval) if made is not None]


def _root(config: RunConfig) -> Path:
    """Return this node's directory of encoded data; with a cache it outlives the pod."""
    return Path(config.layout.cache_dir or config.layout.scratch_dir, "encoded")


def _on_this_node(config: RunConfig, sources: Sequence[DataSource]) -> list[DataFile]:
    """Fetch to this node's disk what rank 0 has on its own."""
    directory = Path(config.layout.scratch_dir, "data")
    credentials = config.layout.credentials.data
    parts = [fetch_parts(source, directory, credentials, lambda _: None) for source in sources]
    return [
        DataFile.joined(source.uri, files, source.format, source.file_format)
        for source, files in zip(sources, parts, strict=True)
    ]


def _index(directory: Path) -> Index:
    index = read_index(directory)
    assert index is not None, "every node has made it"
    return index


def _log_warnings(index: Index) -> None:
    for kind, count in index.warnings.items():
        log.warning("%d rows of the train data: %s", count, Kind(kind).meaning)
    if index.ignored:
        log.info("keys of rows that are ignored: %s", in_words(index.ignored))
    if index.skipped:
        log.warning("%d rows of the train data were left out", index.skipped)


def _list_skipped(config: RunConfig, datasets: Sequence[Path]) -> Path:
    target = Path(config.layout.scratch_dir, SKIPPED)
    with target.open("wb") as whole:
        for directory in datasets:
            with (directory / SKIPPED).open("rb") as part:
                shutil.copyfileobj(part, whole)
    return target

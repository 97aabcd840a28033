"""The job's inputs: resolved to an identity first, fetched to this node's disk second.

A model's revision is the commit for `hf://`. For `s3://` and `file://` it is the sha256 of the
listing of the files that are loaded: one line `PATH SIZE ETAG` each, sorted by path, where for
`file://` the file's sha256 stands in place of the ETag.

With a cache directory a node fetches a model once: files appear there under a lock, each by a
rename, so a file that is there is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from finetune_contract.artifact import ModelIdentity
from finetune_contract.model import sha256_digest
from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource, ModelRecipe
from finetune_trainer.process.errors import Failure
from finetune_trainer.store import hub
from finetune_trainer.store.appearing import appearing
from finetune_trainer.store.digests import digest_of
from finetune_trainer.store.storage import Entry, OnBytes, Role, Store, split_file_uri
from finetune_trainer.store.transfer import at_once, one_at_a_time

WEIGHTS = ".safetensors"
WHOLE = "model.safetensors"  # where transformers finds the weights: here first, as it does,
INDEX = "model.safetensors.index.json"  # else in the files that this names
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SMALL_FILES = (".json", ".jinja", ".txt", ".model")


@dataclass(frozen=True)
class ModelSource:
    """A base model whose revision and files are settled.

    `initial` is the digest of the adapter that training begins with, if it is not a new one.
    """

    identity: ModelIdentity
    files: tuple[Entry, ...]
    initial: str | None = None

    @property
    def small_files(self) -> tuple[Entry, ...]:
        """Return configuration and tokenizer."""
        return tuple(f for f in self.files if not f.path.endswith(WEIGHTS))


def resolve_model(
    recipe: ModelRecipe,
    credentials_dir: str | None,
    *,
    pinned: ModelIdentity | None = None,
    cache: Path | None = None,
) -> ModelSource:
    """Look at the model, without fetching it, and refuse what can not be loaded safely.

    An hf:// model is resolved to the commit of `pinned`, if that is given. `cache` is where digests
    of file:// models are kept.
    """
    if recipe.uri.startswith(hub.SCHEME):
        revision = pinned.revision if pinned else recipe.revision
        repository = hub.model_repository(recipe.uri, revision, credentials_dir)
        commit, listed = repository.resolve()
        files = _model_files(recipe.uri, listed, lambda path: repository.read(path, commit))
        return ModelSource(ModelIdentity(uri=recipe.uri, revision=commit), files)
    if recipe.revision is not None:
        raise Failure(Reason.MODEL_NOT_FOUND, "spec.model.revision is for hf:// models only")
    store = Store(recipe.uri, Role.MODEL, credentials_dir)
    files = _model_files(recipe.uri, store.list(), store.read)
    if store.is_local:
        files = tuple(replace(f, etag=digest_of(store.local_path(f.path), cache)) for f in files)
    return ModelSource(ModelIdentity(uri=recipe.uri, revision=_listing_digest(files)), files)


def fetch_model(
    source: ModelSource,
    files: Iterable[Entry],
    cache_dir: Path,
    credentials_dir: str | None,
    on_bytes: OnBytes = lambda count: None,
) -> Path:
    """Return a directory on this machine that holds the files; file:// models stay in place."""
    uri = source.identity.uri
    if uri.startswith("file://"):
        return Store(uri, Role.MODEL).local_path()
    key = hashlib.sha256(f"{uri}@{source.identity.revision}".encode()).hexdigest()[:32]
    directory = cache_dir / key
    directory.mkdir(parents=True, exist_ok=True)
    counted = one_at_a_time(on_bytes)

    def fetch(entry: Entry) -> None:
        target = directory / entry.path
        if target.exists():
            counted(entry.size)
        else:
            _fetch_file(source, entry, target, credentials_dir, counted)

    with FileLock(cache_dir / f"{key}.lock"):
        at_once(fetch, files)
    return directory


def fetch_data(
    source: DataSource, directory: Path, credentials_dir: str | None, on_bytes: OnBytes
) -> Path:
    """Return the path of a data file on this machine; a file:// source stays in place."""
    key = hashlib.sha256(source.uri.encode()).hexdigest()[:16]
    target = directory / f"{key}.jsonl"
    if source.uri.startswith(hub.SCHEME):
        repository, path = hub.dataset_repository(source.uri, credentials_dir)
        commit, _ = repository.resolve()
        return repository.download(path, commit, directory / key, on_bytes)
    if source.uri.startswith("file://"):
        in_place = Store(source.uri, Role.DATA).local_path()
        if not in_place.is_file():
            raise Failure(Reason.DATA_NOT_FOUND, f"{source.uri} does not exist (spec.data)")
        return in_place
    parent, name = split_file_uri(source.uri)
    _download(Store(parent, Role.DATA, credentials_dir), name, None, target, on_bytes)
    return target


def _fetch_file(
    source: ModelSource,
    entry: Entry,
    target: Path,
    credentials_dir: str | None,
    on_bytes: OnBytes,
) -> None:
    identity = source.identity
    if not identity.uri.startswith(hub.SCHEME):
        store = Store(identity.uri, Role.MODEL, credentials_dir)
        _download(store, entry.path, entry.etag, target, on_bytes)
        return
    repository = hub.model_repository(identity.uri, identity.revision, credentials_dir)
    incoming = target.parent / ".incoming"
    repository.download(entry.path, identity.revision, incoming, on_bytes).rename(target)


def _download(store: Store, path: str, etag: str | None, target: Path, on_bytes: OnBytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with appearing(target) as partial, partial.open("wb") as file:
        for chunk in store.chunks(path, etag):
            file.write(chunk)
            on_bytes(len(chunk))


def _model_files(
    uri: str, listed: Iterable[Entry], read: Callable[[str], bytes]
) -> tuple[Entry, ...]:
    """Keep the files that loading reads: no pickles, no code, nothing in sub-directories.

    A repository may hold its weights a second time in another layout (consolidated.safetensors).
    Raises Failure where there is nothing to load, or nothing that is safe to.
    """
    here = {f.path: f for f in listed if "/" not in f.path}
    _check_files(uri, here)
    weights = {WHOLE} if WHOLE in here else _shards(uri, read(INDEX))
    missing = sorted(weights - here.keys())
    if missing:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"{uri} lacks {len(missing)} of the files that {INDEX} names, such as {missing[0]}; "
            "upload all *.safetensors files of the model",
        )
    return tuple(here[n] for n in sorted(here) if n in weights or n.endswith(SMALL_FILES))


def _shards(uri: str, index: bytes) -> set[str]:
    """Return the names of the files that an index tells of."""
    try:
        names = set(json.loads(index)["weight_map"].values())
        if not all(name.endswith(WEIGHTS) for name in names):
            raise ValueError("not safetensors")
        return names
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(
            Reason.MODEL_UNSUPPORTED, f"{uri}/{INDEX} is damaged; upload it again"
        ) from error


def _check_files(uri: str, names: Collection[str]) -> None:
    if "config.json" not in names:
        raise Failure(Reason.MODEL_NOT_FOUND, f"{uri} holds no config.json (spec.model.uri)")
    if WHOLE in names or INDEX in names:
        return
    if any(name.endswith(WEIGHTS) for name in names):
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"{uri} holds neither {WHOLE} nor {INDEX}; save the model with save_pretrained",
        )
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"{uri} holds its weights as pickle only ({pickles[0]}), which can run code when "
            "loaded; save it again with save_pretrained(safe_serialization=True)",
        )
    raise Failure(Reason.MODEL_NOT_FOUND, f"{uri} holds no *.safetensors file (spec.model.uri)")


def _listing_digest(files: Iterable[Entry]) -> str:
    lines = "".join(f"{f.path} {f.size} {f.etag}\n" for f in files)
    return sha256_digest(lines.encode())

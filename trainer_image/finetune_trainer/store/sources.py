"""The job's inputs: resolved to an identity first, fetched to this node's disk second.

A model's revision is the commit for `hf://`. For `s3://` and `file://` it is the sha256 of the
listing of the files that are loaded: one line `PATH SIZE ETAG` each, sorted by path, where for
`file://` the file's sha256 stands in place of the ETag.

With a cache directory a node fetches a model once: files appear there under a lock, each by a
rename. Other jobs may write there too, so a file is used only if it is one itself, of the size and
digest that the hub tells, or that were recorded when it was fetched from a bucket.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune_contract.artifact import ModelIdentity
from finetune_contract.foreign import parse
from finetune_contract.model import sha256_digest
from finetune_contract.reasons import Reason
from finetune_contract.recipe import ChatTemplate, DataSource, ModelRecipe
from finetune_trainer.process.errors import Failure
from finetune_trainer.store import hub
from finetune_trainer.store.appearing import alone, appearing, own_directory, remove
from finetune_trainer.store.digests import GIT_BLOB, SHA256, agrees, digest_of, is_file
from finetune_trainer.store.storage import Entry, OnBytes, Role, Store, split_file_uri
from finetune_trainer.store.transfer import at_once, one_at_a_time

log = logging.getLogger(__name__)

INCOMING = ".incoming-"  # directories that the hub's client downloads into
WEIGHTS = ".safetensors"
WHOLE = "model.safetensors"  # where transformers finds the weights: here first, as it does,
INDEX = "model.safetensors.index.json"  # else in the files that this names
ADAPTER = "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LONGEST_TEMPLATE = 131_072  # bytes
SMALL_FILES = (".json", ".jinja", ".txt", ".model")


@dataclass(frozen=True)
class ModelSource:
    """A base model whose revision and files are settled.

    `initial` is the digest of the adapter that training begins with, if it is not a new one;
    `template` is the job's own chat template.
    """

    identity: ModelIdentity
    files: tuple[Entry, ...]
    initial: str | None = None
    template: str | None = None

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
    checked: Path | None = None,
) -> Path:
    """Return a directory on this machine that holds the files; file:// models stay in place.

    `checked` is this pod's own directory, where digests are kept of what its ranks have read.
    """
    uri = source.identity.uri
    if uri.startswith("file://"):
        return Store(uri, Role.MODEL).local_path()
    key = hashlib.sha256(f"{uri}@{source.identity.revision}".encode()).hexdigest()[:32]
    directory = own_directory(own_directory(cache_dir) / key)
    counted = one_at_a_time(on_bytes)

    def fetch(entry: Entry) -> None:
        target = directory / entry.path
        if _is_kept(source, entry, target, checked):
            counted(entry.size)
            return
        if os.path.lexists(target):
            log.warning("%s is not what was fetched: fetching it again", target)
        _fetch_file(source, entry, target, credentials_dir, counted)
        if _hub_digest(source, entry) is None:
            with appearing(_record(target)) as partial:
                partial.write_text(digest_of(target, checked))
        elif not _is_kept(source, entry, target, checked):
            raise Failure(Reason.VERIFICATION_FAILED, f"{uri} {entry.path} arrived altered")

    with alone(cache_dir / f"{key}.lock"):
        _clear(directory, source)
        at_once(fetch, files)
    return directory


def _clear(directory: Path, source: ModelSource) -> None:
    """Remove what is none of the model's: what a pod that was killed left, and what others put
    there for loading to find, such as a template."""
    files = {entry.path for entry in source.files}
    kept = files | {_record(Path(name)).name for name in files}
    for left in directory.iterdir():
        if left.name not in kept:
            log.warning("%s is none of the model's files: removing it", left)
            remove(left)


def _is_kept(source: ModelSource, entry: Entry, target: Path, checked: Path | None) -> bool:
    """Tell whether a file of the cache is what it is to be."""
    if not is_file(target, entry.size):
        return False
    digest, record = _hub_digest(source, entry), _record(target)
    if digest is None and is_file(record):
        digest = record.read_text(errors="replace")
        digest = digest if SHA256.fullmatch(digest) else None
    return digest is not None and agrees(target, digest, checked)


def _hub_digest(source: ModelSource, entry: Entry) -> str | None:
    """Return what the hub knows the file's content by; None for a bucket's, whose ETag may be of
    parts."""
    known = SHA256.fullmatch(entry.etag) or GIT_BLOB.fullmatch(entry.etag)
    return entry.etag if source.identity.uri.startswith(hub.SCHEME) and known else None


def _record(target: Path) -> Path:
    return target.with_name(f".{target.name}.sha256")


def read_template(
    given: ChatTemplate | None, credentials_dir: str | None, mounted: str | None = None
) -> str | None:
    """Return the job's own chat template, if it has one; one in a ConfigMap is `mounted`."""
    if given is None or given.inline is not None:
        return None if given is None else given.inline
    if given.config_map is not None:
        if mounted is None:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                "spec.model.chatTemplate.configMap is read in a cluster: write it inline",
            )
        given = ChatTemplate(uri=Path(mounted).as_uri())
    assert given.uri is not None, "the API sees to it"
    if given.uri.startswith("file://"):
        store = Store(given.uri, Role.MODEL)
        found = store.local_path().read_bytes() if store.local_path().is_file() else None
    else:
        parent, name = split_file_uri(given.uri)
        found = Store(parent, Role.MODEL, credentials_dir).read_range(name, 0, LONGEST_TEMPLATE + 1)
    if found is None:
        raise Failure(
            Reason.MODEL_NOT_FOUND, f"{given.uri} does not exist (spec.model.chatTemplate)"
        )
    try:
        text = found.decode()
    except UnicodeDecodeError as error:
        said = f"{given.uri} is not UTF-8 (spec.model.chatTemplate)"
        raise Failure(Reason.MODEL_UNSUPPORTED, said) from error
    if not text.strip() or len(found) > LONGEST_TEMPLATE:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"{given.uri} has {'no' if not text.strip() else 'more than 128 KiB of'} text "
            "(spec.model.chatTemplate)",
        )
    return text


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
    with TemporaryDirectory(prefix=INCOMING, dir=target.parent) as incoming:
        file = repository.download(entry.path, identity.revision, Path(incoming), on_bytes)
        with appearing(target) as partial:
            file.rename(partial)


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
        names = set(parse(index)["weight_map"].values())
        if not all(name.endswith(WEIGHTS) for name in names):
            raise ValueError("not safetensors")
        return names
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(
            Reason.MODEL_UNSUPPORTED, f"{uri}/{INDEX} is damaged; upload it again"
        ) from error


def _check_files(uri: str, names: Collection[str]) -> None:
    if ADAPTER in names:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"{uri} holds an adapter: with {ADAPTER} there, the model that it names would be "
            "loaded instead; take a base model, or remove the file (an adapter to go on from goes "
            "into spec.model.initFrom)",
        )
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

"""Which files a source of data is: one, all below a directory, what a pattern matches, or a split.

A data set on the hub says in its README.md which files are of a configuration and a split
(`configs`); where it does not, directories are configurations, and the names of files tell their
split. What the hub lists is of one commit, so that files are of one state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource
from finetune_trainer.process.errors import Failure
from finetune_trainer.store import hub
from finetune_trainer.store.sources import fetch_data
from finetune_trainer.store.storage import OnBytes, Role, Store

MOST_FILES = 2000
CARD, LONGEST_CARD = "README.md", 2**20  # bytes
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
PACKED = (".gz", ".gzip", ".zst", ".zstd")
ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
# As the datasets library knows splits by the words of a path.
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
Part = tuple[str, Path]  # a file's URI, and where it lies on this machine


def fetch_parts(
    source: DataSource, directory: Path, credentials_dir: str | None, on_bytes: OnBytes
) -> tuple[Part, ...]:
    """Return the files of a source, on this machine; file:// ones stay in place."""
    uris = part_uris(source, credentials_dir)
    return tuple(
        (uri, fetch_data(DataSource(uri=uri), directory, credentials_dir, on_bytes)) for uri in uris
    )


def part_uris(source: DataSource, credentials_dir: str | None) -> list[str]:
    """Return the URIs of a source's files, sorted; raise DataNotFound where there is none."""
    uri = source.uri
    if uri.startswith(hub.DATASETS):
        return _on_the_hub(source, credentials_dir)
    base, wanted = _split(uri)
    if wanted is None:
        return [uri]
    store = Store(base, Role.DATA, credentials_dir)
    paths = _sound(uri, [path for path in store.paths() if wanted(path)])
    return [f"{store.uri}/{path}" for path in paths]


def _split(uri: str) -> tuple[str, Callable[[str], bool] | None]:
    """Return the directory that a URI's files are below, and which of them are meant; None for a
    URI of one file."""
    fixed = re.split(r"[*\[]", uri, maxsplit=1)[0]
    if fixed != uri:
        base = fixed.rpartition("/")[0]
        return base, _matching(uri[len(base) + 1 :])
    is_directory = uri.startswith("file://") and Store(uri, Role.DATA).local_path().is_dir()
    if uri.endswith("/") or is_directory:
        return uri.rstrip("/"), is_data
    return uri, None


_DEEP = {"**": ".*", "**/": "(?:.*/)?"}


def _matching(pattern: str) -> Callable[[str], bool]:
    """Return what tells paths that match a pattern; `*` stays in a directory, `**` does not."""
    pieces = [
        _DEEP.get(piece) or translate(piece)[4:-3].replace(".*", "[^/]*")
        for piece in re.split(r"(\*\*/?)", pattern)
    ]
    return lambda path: re.fullmatch("".join(pieces), path) is not None


def is_data(path: str) -> bool:
    """Tell whether a file of a directory is one of rows, by its name."""
    pure = PurePosixPath(path.lower())
    if any(part.startswith((".", "_")) for part in pure.parts) or pure.name in ABOUT:
        return False
    name = pure.name
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name.endswith(SUFFIXES)


def _on_the_hub(source: DataSource, credentials_dir: str | None) -> list[str]:
    repository, path = hub.dataset_repository(source.uri, credentials_dir)
    many = not path or path.endswith("/") or re.search(r"[*\[]", path)
    if path and source.config is not None:
        raise Failure(
            Reason.DATA_NOT_FOUND,
            f"{source.uri}: config chooses files of a whole data set; remove it, or the path",
        )
    if not many and source.config is None and source.split is None:
        return [source.uri]
    commit, entries = repository.resolve()
    below = [entry.path for entry in entries]
    card = next((e for e in entries if e.path == CARD and e.size <= LONGEST_CARD), None)
    if path:
        wanted = is_data_below(path) if path.endswith("/") or path not in below else path.__eq__
        if re.search(r"[*\[]", path):
            wanted = _matching(path)
        found = [name for name in below if wanted(name)]
        if source.split is not None:
            found = [name for name in found if split_of(name) == source.split]
    else:
        text = repository.read(CARD, commit) if card else b""
        found = chosen(source, below, configs(text))
    root = f"{hub.DATASETS}{repository.name}@{commit}"
    return [f"{root}/{name}" for name in _sound(source.uri, found)]


def is_data_below(directory: str) -> Callable[[str], bool]:
    """Return what tells the files of rows below a directory."""
    return lambda path: path.startswith(directory.rstrip("/") + "/") and is_data(path)


def configs(card: bytes) -> list[dict[str, Any]]:
    """Return the configurations that a data set's card lists; [] for none that can be read."""
    found = re.match(rb"\s*---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        header = yaml.safe_load(found[1]) if found else None
        listed = header.get("configs") if isinstance(header, dict) else None
    except (yaml.YAMLError, RecursionError, ValueError):
        return []
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def chosen(source: DataSource, paths: Sequence[str], listed: list[dict[str, Any]]) -> list[str]:
    """Return the files of a configuration and split; raise DataNotFound with what there is."""
    listed = [one for one in listed if "data_files" in one or "data_dir" in one]
    if not listed:
        return _by_names(source, paths)
    names = [str(one.get("config_name", "default")) for one in listed]
    default = next((n for n, one in zip(names, listed, strict=True) if one.get("default")), None)
    wanted = source.config or default or (names[0] if len(names) == 1 else "default")
    if wanted not in names:
        raise _choose(source, "config", names)
    one = listed[names.index(wanted)]
    directory = str(one.get("data_dir") or "").strip("./")
    if "data_files" not in one:
        return _by_split(source, [p for p in paths if is_data_below(directory)(p)])
    split = source.split or "train"
    patterns = _patterns(one["data_files"])
    if split not in patterns:
        raise _choose(source, "split", sorted(patterns))
    tests = [_matching("/".join(filter(None, (directory, each)))) for each in patterns[split]]
    return [path for path in paths if any(test(path) for test in tests)]


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """Return the patterns of each split: data_files is one, a list, or splits with theirs."""
    found: dict[str, list[str]] = {}
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    for one in data_files if isinstance(data_files, list) else [data_files]:
        split, path = (
            ("train", one) if isinstance(one, str) else (one.get("split"), one.get("path"))
        )
        each = path if isinstance(path, list) else [path]
        found.setdefault(str(split), []).extend(str(pattern) for pattern in each)
    return found


def _by_names(source: DataSource, paths: Sequence[str]) -> list[str]:
    """Return the files of a data set without a list: its directories are configurations."""
    data = [path for path in paths if is_data(path)]
    top = {path.split("/")[0] for path in data if "/" in path}
    named = sorted(top - {"data"} - {word for words in WORDS.values() for word in words})
    if source.config is not None:
        if source.config not in named:
            raise _choose(source, "config", named)
        data = [path for path in data if path.startswith(f"{source.config}/")]
    elif len(named) > 1 and not any("/" not in path for path in data):
        raise _choose(source, "config", named)
    return _by_split(source, data)


def _by_split(source: DataSource, data: Sequence[str]) -> list[str]:
    splits = {split_of(path) for path in data}
    wanted = source.split or "train"
    if wanted in splits:
        return [path for path in data if split_of(path) == wanted]
    if splits <= {None} and source.split in (None, "train"):
        return list(data)  # files that tell of no split are all to train on
    raise _choose(source, "split", sorted(filter(None, splits)))


def split_of(path: str) -> str | None:
    """Return the split that a file is of by its name, or else by its directories."""
    for part in reversed(PurePosixPath(path).parts):
        words = re.split(r"[^a-z]+", part.lower())
        for split, known in WORDS.items():
            if any(word in known for word in words):
                return split
        named = re.match(r"(\w+?)-\d{5}-of-\d{5}", part)
        if named:
            return named[1]
    return None


def _choose(source: DataSource, field: str, there: Sequence[str]) -> Failure:
    names = ", ".join(name[:64] for name in there[:20]) or "none"
    asked = getattr(source, field)
    why = f"has no {field} {asked}" if asked else f"has several: which {field} is meant"
    return Failure(
        Reason.DATA_NOT_FOUND, f"{source.uri} {why}; set spec.data[].{field} to one of: {names}"
    )


def _sound(uri: str, paths: Sequence[str]) -> list[str]:
    if not paths:
        raise Failure(Reason.DATA_NOT_FOUND, f"{uri} holds no file of rows (spec.data)")
    if len(paths) > MOST_FILES:
        raise Failure(
            Reason.DATA_NOT_FOUND,
            f"{uri} holds {len(paths):,} files of rows, more than {MOST_FILES:,}: join some",
        )
    return sorted(paths)

"""A published artifact, opened as whoever uses it would."""

from __future__ import annotations

from pathlib import Path

from finetune_contract.artifact import MANIFEST
from finetune_trainer.store.artifacts import download, locate
from finetune_trainer.store.storage import Role, Store


def open_artifact(uri: str, credentials_dir: str | None, dest: Path) -> Path:
    """Download an artifact into `dest` and return it; `uri` is a job's output or an artifact's."""
    store = Store(uri, Role.OUTPUT, credentials_dir)
    located = locate(store)
    dest.mkdir(parents=True, exist_ok=True)
    for entry in located.manifest.files:
        download(store, located.base, entry, dest / entry.path)
    (dest / MANIFEST).write_bytes(located.data)
    return dest

"""A store with something between it and who asks: to fail a request, to hold it, to come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finetune_trainer.store.publish import Output
from finetune_trainer.store.storage import Store

Before = Callable[[str, str], object]  # given the request's name and its path


class MeddledStore(Store):
    """A store on this machine's disk that calls a function before it does what it is asked."""

    def __init__(self, store: Store, before: Before) -> None:
        super().__init__(store.uri, store.role)
        self._before = before

    def paths(self, prefix: str = "") -> Sequence[str]:
        self._before("paths", prefix)
        return super().paths(prefix)

    def delete(self, path: str) -> None:
        self._before("delete", path)
        super().delete(path)

    def chunks(self, path: str, etag: str | None = None) -> Iterator[bytes]:
        self._before("chunks", path)
        return super().chunks(path, etag)

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        self._before("read_tagged", path)
        return super().read_tagged(path)

    def upload(self, path: str, source: Path) -> None:
        self._before("upload", path)
        super().upload(path, source)


def meddled(output: Output, before: Before) -> Output:
    """Return a claim whose store calls a function first."""
    return replace(output, store=MeddledStore(output.store, before))

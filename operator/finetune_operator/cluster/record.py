"""An object as the cache holds it: what is read of it, packed.

As dictionaries, ten thousand jobs with their children would take a gigabyte. Their texts are much
alike: an object is deflated with one of its kind that came before, which leaves a tenth.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field

from finetune_operator.cluster.json_text import read, write
from finetune_operator.job.names import Object

_RAW = -zlib.MAX_WBITS  # without a header
_FASTEST = 1
_WELL = 3  # times smaller than its text
# Of a kind. Whoever fills objects with what is like no other has all of them packed worse, as if
# each stood alone; that is all.
_SAMPLES = 16
_LONGEST_SAMPLE = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One state of an object."""

    uid: str
    version: int
    _packed: bytes
    _sample: bytes

    @property
    def body(self) -> Object:
        """Return the object, which is the caller's own."""
        found: Object = read(zlib.decompressobj(_RAW, self._sample).decompress(self._packed))
        return found


@dataclass(slots=True)
class _Samples:
    newest: bytes = b""
    count: int = 0


@dataclass(slots=True)
class Press:
    """Makes records; by kind it keeps the object that others are like."""

    _samples: dict[str, _Samples] = field(default_factory=lambda: defaultdict(_Samples))

    def record(self, body: Object) -> Record:
        """Return the record of an object."""
        metadata, text = body["metadata"], write(body)
        samples = self._samples[body["kind"]]
        record = Record(
            metadata["uid"], version(metadata), _deflated(text, samples.newest), samples.newest
        )
        if len(record._packed) * _WELL > len(text) and samples.count < _SAMPLES:
            samples.newest, samples.count = text[:_LONGEST_SAMPLE], samples.count + 1
        return record


def _deflated(text: bytes, sample: bytes) -> bytes:
    press = zlib.compressobj(_FASTEST, zlib.DEFLATED, _RAW, zdict=sample)
    return press.compress(text) + press.flush()


def version(metadata: Object) -> int:
    """Return a resourceVersion as a number, by which versions of a resource are ordered.

    Kubernetes promises that since 1.35 (KEP 5504), and etcd has always kept it.
    """
    text = str(metadata.get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0

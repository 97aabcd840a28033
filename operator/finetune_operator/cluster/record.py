"""An object as the cache holds it: what is read of it, as text.

As dictionaries, ten thousand jobs with their children would take a gigabyte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from finetune_operator.job.names import Object


@dataclass(frozen=True, slots=True)
class Record:
    """One state of an object."""

    uid: str
    version: int
    text: str

    @classmethod
    def of(cls, body: Object) -> Record:
        """Return the record of an object."""
        metadata = body["metadata"]
        text = json.dumps(body, separators=(",", ":"))
        return cls(metadata["uid"], version(metadata), text)

    @property
    def body(self) -> Object:
        """Return the object, which is the caller's own."""
        found: Object = json.loads(self.text)
        return found


def version(metadata: Object) -> int:
    """Return a resourceVersion as a number, by which versions of a resource are ordered.

    Kubernetes promises that since 1.35 (KEP 5504), and etcd has always kept it.
    """
    text = str(metadata.get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0

"""An API server of which operators see one Lease alone."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from finetune_operator.cluster.api import ApiError

Json = Any


@dataclass
class LeaseServer:
    """One Lease, as an API server keeps it: a write that changes nothing makes no new version."""

    lease: Json = None
    version: int = 0

    def get(self) -> Json:
        return copy.deepcopy(self.lease)

    def write(self, body: Json) -> Json:
        metadata, known = body["metadata"], self.lease
        if known is None and "uid" in metadata:
            raise ApiError(404, "NotFound", "gone")
        if known is not None and "uid" not in metadata:
            raise ApiError(409, "AlreadyExists", "there already")
        if known and metadata["resourceVersion"] != known["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "modified")
        if known is None or known["spec"] != body["spec"]:
            self.version += 1
            uid = known["metadata"]["uid"] if known else f"uid-{self.version}"
            metadata = {**metadata, "uid": uid, "resourceVersion": str(self.version)}
            self.lease = copy.deepcopy({**body, "metadata": metadata})
        return self.get()

    def touch(self) -> None:
        """A stranger writes something beside the record."""
        if self.lease is not None:
            self.version += 1
            self.lease["metadata"]["resourceVersion"] = str(self.version)

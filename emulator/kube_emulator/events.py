"""Events, counted instead of repeated, as client-go's recorder does."""

import hashlib

from kube_emulator.client import EVENTS, ApiError, Client, Object
from kube_emulator.timestamps import timestamp

KEPT = 4096


class Recorder:
    """Writes core/v1 Events as `component`; a lost event is never an error."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self.client = client
        self._source = {"component": component} | ({"host": host} if host else {})
        self._counts: dict[str, int] = {}

    async def event(self, about: Object, kind: str, reason: str, message: str) -> None:
        """Record `reason` about an object; `kind` is Normal or Warning."""
        meta = about["metadata"]
        text = f"{meta['uid']} {kind} {reason} {message}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        name = f"{meta['name'][:200]}.{digest}"
        stamp = timestamp()
        count = self._counts.pop(digest, 0) + 1
        self._counts[digest] = count
        if len(self._counts) > KEPT:
            self._counts.pop(next(iter(self._counts)))
        path = EVENTS.path(meta["namespace"])
        try:
            if count > 1:
                await self.client.patch(f"{path}/{name}", {"count": count, "lastTimestamp": stamp})
            else:
                body = self._body(about, kind, reason, message) | {
                    "metadata": {"name": name, "namespace": meta["namespace"]},
                    "firstTimestamp": stamp,
                    "lastTimestamp": stamp,
                }
                await self.client.create(path, body)
        except ApiError:
            # the namespace is going away, or the event has expired: begin to count again
            self._counts.pop(digest, None)

    def _body(self, about: Object, kind: str, reason: str, message: str) -> Object:
        meta = about["metadata"]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "count": 1,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
        }

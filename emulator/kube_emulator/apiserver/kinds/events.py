"""Events have two groups and one storage: core/v1 is stored, events.k8s.io/v1 is a view of it."""

from __future__ import annotations

from kube_emulator.apiserver.kinds.catalogue import Object

API_VERSION = "events.k8s.io/v1"

_NAMES = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedSource": "source",
}
_SERVED = {core: served for served, core in _NAMES.items()}


def to_served_event(obj: Object) -> Object:
    """A stored Event in the words of events.k8s.io/v1."""
    return {**{_SERVED.get(k, k): v for k, v in obj.items()}, "apiVersion": API_VERSION}


def to_stored_event(obj: Object) -> Object:
    """An Event of events.k8s.io/v1 in the words of core/v1."""
    return {**{_NAMES.get(k, k): v for k, v in obj.items()}, "apiVersion": "v1"}

"""Deletion: preconditions, grace, finalizers, propagation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.objects.resources import Resources
from kube_emulator.apiserver.wire.request import WriteOptions
from kube_emulator.timestamps import timestamp

_RETURNED = ("pods", "services", "serviceaccounts", "persistentvolumeclaims")
"""Kinds whose deletion answers with the object instead of a Status."""

_POLICY_FINALIZER = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


@dataclass(frozen=True)
class DeleteOptions:
    """How to delete; from the body, or from the query where there is no body."""

    grace_seconds: int | None = None
    propagation: str = "Background"
    uid: str | None = None
    resource_version: str | None = None

    @classmethod
    def parse(cls, body: Any, query: dict[str, str]) -> DeleteOptions:
        given: dict[str, Any] = {**query, **(body if isinstance(body, dict) else {})}
        grace = given.get("gracePeriodSeconds")
        policy = given.get("propagationPolicy") or "Background"
        if given.get("orphanDependents") in (True, "true"):
            policy = "Orphan"
        if policy not in ("Background", "Foreground", "Orphan"):
            text = f"Unsupported value: {json.dumps(policy)}: supported values: "
            text += '"Foreground", "Background", "Orphan", "nil"'
            raise errors.invalid_options(
                "DeleteOptions", "propagationPolicy", text, "FieldValueNotSupported"
            )
        preconditions = given.get("preconditions") or {}
        return cls(
            None if grace is None else int(grace),
            policy,
            preconditions.get("uid"),
            preconditions.get("resourceVersion"),
        )


def delete(
    resources: Resources,
    kind: Kind,
    namespace: str,
    name: str,
    how: DeleteOptions,
    options: WriteOptions,
) -> Object:
    """Delete one object, or mark it for deletion; what the client is answered is returned."""
    obj = resources.get(kind, namespace, name)
    _check_preconditions(kind, obj, how)
    meta = dict(obj["metadata"])
    finalizers = [f for f in meta.get("finalizers", []) if f not in _POLICY_FINALIZER.values()]
    if "deletionTimestamp" in meta and how.propagation == "Background":
        finalizers = list(meta.get("finalizers", []))
    elif how.propagation in _POLICY_FINALIZER:
        finalizers.append(_POLICY_FINALIZER[how.propagation])
    grace = _grace(kind, obj, how)
    held = bool(finalizers) or grace > 0 or kind.plural == "namespaces"
    if held:
        return _mark(resources, kind, obj, finalizers, grace, options)
    if not options.dry_run:
        obj = resources.store.remove(kind.storage_key, meta.get("namespace", ""), name)
    return obj if kind.plural in _RETURNED else _success(kind, obj)


def _check_preconditions(kind: Kind, obj: Object, how: DeleteOptions) -> None:
    meta = obj["metadata"]
    if how.uid is not None and how.uid != meta["uid"]:
        raise errors.precondition_failed(
            kind,
            meta["name"],
            f"the UID in the precondition ({how.uid}) does not match the UID in record "
            f"({meta['uid']}). The object might have been deleted and then recreated",
        )
    if how.resource_version not in (None, meta["resourceVersion"]):
        raise errors.precondition_failed(
            kind,
            meta["name"],
            f"the ResourceVersion in the precondition ({how.resource_version}) does not match the "
            f"ResourceVersion in record ({meta['resourceVersion']}). The object might have been "
            "modified",
        )


def _grace(kind: Kind, obj: Object, how: DeleteOptions) -> int:
    """Seconds a pod is given to end; nothing else is deleted gracefully."""
    if kind.plural != "pods" or kind.group:
        return 0
    spec, status = obj.get("spec", {}), obj.get("status", {})
    if not spec.get("nodeName") or status.get("phase") in ("Failed", "Succeeded"):
        return 0
    asked = how.grace_seconds
    return int(spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def _mark(
    resources: Resources,
    kind: Kind,
    obj: Object,
    finalizers: list[str],
    grace: int,
    options: WriteOptions,
) -> Object:
    meta = dict(obj["metadata"])
    first = "deletionTimestamp" not in meta
    if first or grace < meta.get("deletionGracePeriodSeconds", 0):
        started = datetime.now(UTC) + timedelta(seconds=grace)
        meta["deletionTimestamp"] = timestamp(started)
        meta["deletionGracePeriodSeconds"] = grace
        if first and "generation" in meta:
            meta["generation"] += 1
    meta.pop("finalizers", None)
    if finalizers:
        meta["finalizers"] = finalizers
    new = {**obj, "metadata": meta}
    if kind.plural == "namespaces":
        new["status"] = {**obj.get("status", {}), "phase": "Terminating"}
    if new == obj or options.dry_run:
        return new
    return resources.store.put(kind.storage_key, new)


def _success(kind: Kind, obj: Object) -> Object:
    details = {"name": obj["metadata"]["name"], "kind": kind.plural, "uid": obj["metadata"]["uid"]}
    if kind.group:
        details["group"] = kind.group
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }

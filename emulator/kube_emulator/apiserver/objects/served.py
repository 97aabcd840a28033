"""The kinds that CustomResourceDefinitions serve, and the definitions' conditions."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Kind, Object, Registry
from kube_emulator.apiserver.kinds.schemas import custom_schema, schema_of
from kube_emulator.apiserver.objects.storage import Change, Store
from kube_emulator.timestamps import timestamp
from kube_schema.structural import apply_defaults, prune

RESOURCE = "apiextensions.k8s.io/customresourcedefinitions"


def kinds_of(definition: Object) -> list[Kind]:
    """The kinds a definition serves, one per served version."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        Kind(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames", [])),
            categories=tuple(names.get("categories", [])),
            status="status" in version.get("subresources", {}),
            generation=True,
            singular_name=names.get("singular", ""),
            list_kind_name=names.get("listKind", ""),
            definition=version,
            schema=custom_schema(version),
        )
        for version in spec["versions"]
        if version["served"]
    ]


class DefinitionController:
    """Serves what definitions describe, and marks them Established."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        store.on_change(self._changed)

    def _changed(self, written: str, change: Change) -> None:
        if written != RESOURCE:
            return
        spec = change.object["spec"]
        self._registry.remove(spec["group"], spec["names"]["plural"])
        resource = f"{spec['group']}/{spec['names']['plural']}"
        if change.type == "DELETED":
            for obj in self._store.list(resource):
                meta = obj["metadata"]
                self._store.remove(resource, meta.get("namespace", ""), meta["name"])
            self._store.drop(resource)
            return
        kinds = kinds_of(change.object)
        for kind in kinds:
            self._registry.add(kind)
        if kinds and change.previous and change.previous["spec"] != spec:
            self._store.rewrite(resource, partial(_as_read, schema_of(kinds[0])))
        if "conditions" not in change.object.get("status", {}):
            status = _established(change.object)
            self._store.put(RESOURCE, {**change.object, "status": status})


def _as_read(schema: Object, stored: Object) -> Object:
    """Stored objects are read through the definition of the day: pruned, and defaulted."""
    obj = copy.deepcopy(stored)
    prune(schema, obj)
    apply_defaults(schema, obj)
    return obj


def _established(definition: Object) -> Object:
    now = timestamp()
    generation = definition["metadata"].get("generation", 1)
    stored = [v["name"] for v in definition["spec"]["versions"] if v["storage"]]

    def condition(kind: str, reason: str, message: str) -> dict[str, Any]:
        return {
            "type": kind,
            "status": "True",
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
        }

    return {
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition(
                "Established", "InitialNamesAccepted", "the initial names have been accepted"
            ),
        ],
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
    }

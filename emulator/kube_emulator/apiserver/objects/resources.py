"""What a write does: admit -> default -> manage fields -> validate -> store.

Everything here runs without awaiting, so each request sees and leaves one consistent state.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object, Registry
from kube_emulator.apiserver.kinds.definitions import validate_definition
from kube_emulator.apiserver.kinds.schemas import schema_of
from kube_emulator.apiserver.kinds.strategies import (
    KEEPS_STATUS_ON_CREATE,
    NEEDS_VERSION,
    initial_status,
    set_defaults,
    validate_builtin,
)
from kube_emulator.apiserver.objects import apply
from kube_emulator.apiserver.objects.admission import admit_pod, check_namespace
from kube_emulator.apiserver.objects.metadata import (
    kept_metadata,
    new_metadata,
    refuse_late_finalizers,
    same_content,
    spec_differs,
    validate_metadata,
)
from kube_emulator.apiserver.objects.storage import Store
from kube_emulator.apiserver.wire import patches
from kube_emulator.apiserver.wire.decoding import admit_applied, admit_object, check_types
from kube_emulator.apiserver.wire.request import WriteOptions
from kube_emulator.timestamps import timestamp
from kube_schema.field_errors import FieldError
from kube_schema.structural import apply_defaults, validate

FinalCheck = Callable[[Kind, Object, Object | None], None]
"""A last word on a write: (kind, new object, stored object or None); raises StatusError."""

_PATCHES = (patches.JSON_PATCH, patches.MERGE_PATCH, patches.APPLY_PATCH)


@dataclass(frozen=True)
class Write:
    """One write: where it goes and how. `name` is empty for a create."""

    kind: Kind
    namespace: str
    name: str
    options: WriteOptions
    subresource: str = ""
    final_check: FinalCheck | None = None

    def manager(self, operation: apply.Operation) -> apply.Manager:
        version = self.kind.api_version
        return apply.Manager(self.options.field_manager, operation, version, self.subresource)


class Resources:
    """Create, replace and patch objects of every stored kind."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store = store
        self.registry = registry

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self.store.get(kind.storage_key, namespace if kind.namespaced else "", name)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """The stored object. Raises StatusError 404."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise errors.not_found(kind, name)
        return found

    def create(self, write: Write, body: Any) -> Object:
        """Store a new object. Raises StatusError."""
        obj = admit_object(write.kind, write.namespace, body, write.options)
        if obj["metadata"].get("resourceVersion"):
            raise errors.internal("resourceVersion should not be set on objects to be created")
        return self._create(write, obj, None)

    def replace(self, write: Write, body: Any) -> Object:
        """Store a whole object (PUT). Raises StatusError."""
        kind, name = write.kind, write.name
        old = self.get(kind, write.namespace, name)
        new = admit_object(kind, write.namespace, body, write.options)
        meta, uid = new["metadata"], old["metadata"]["uid"]
        _check_name(meta, name)
        custom = kind.definition is not None
        if not meta.get("resourceVersion") and (custom or kind.plural in NEEDS_VERSION):
            raise errors.version_required(kind, name)
        if meta.get("uid", uid) != uid:
            why = f"UID in precondition: {meta['uid']}, UID in object meta: {uid}"
            raise errors.conflict(kind, name, f"Precondition failed: {why}")
        return self._update(write, old, new, None)

    def patch(self, write: Write, media_type: str, body: Any) -> Object:
        """Apply a patch of any of the four types; an apply creates what is not there."""
        kind = write.kind
        strategic = media_type == patches.STRATEGIC_MERGE_PATCH and kind.definition is None
        if media_type not in _PATCHES and not strategic:
            raise errors.unsupported_media_type(_PATCHES)
        if media_type == patches.APPLY_PATCH:
            return self._apply(write, body)
        old = self.get(kind, write.namespace, write.name)
        if media_type == patches.JSON_PATCH:
            new = patches.json_patch(old, body)
        elif media_type == patches.MERGE_PATCH:
            new = patches.merge_patch(old, body)
        else:
            new = patches.strategic_merge_patch(schema_of(kind), old, body)
        new = copy.deepcopy(new)
        new = admit_object(kind, write.namespace, new, write.options, patched=True)
        return self._update(write, old, new, None)

    def _apply(self, write: Write, body: Any) -> Object:
        kind, name = write.kind, write.name
        config = admit_applied(kind, write.namespace, body)
        meta = config["metadata"]
        if meta.get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        _check_name(meta, name)
        old = self.find(kind, write.namespace, name)
        if old is None and write.subresource:
            raise errors.not_found(kind, name)
        if old is None and meta.get("uid"):
            why = f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing"
            raise errors.conflict(kind, name, f"{why} object was found")
        new = apply.apply(
            schema_of(kind),
            kind,
            old or {},
            config,
            write.manager("Apply"),
            write.options.force,
            timestamp(),
        )
        new = copy.deepcopy(new)
        managed = new["metadata"]["managedFields"]
        if old is None:
            return self._create(write, new, managed)
        return self._update(write, old, new, managed)

    def _create(self, write: Write, obj: Object, managed: list[Object] | None) -> Object:
        kind, schema = write.kind, schema_of(write.kind)
        obj["metadata"] = new_metadata(kind, obj["metadata"], write.namespace)
        name = obj["metadata"].get("name", "")
        check_namespace(self.store, kind, write.namespace, name)
        if kind.definition is None:
            set_defaults(kind, obj)
        if kind.status and kind.plural not in KEEPS_STATUS_ON_CREATE:
            obj.pop("status", None)
        apply_defaults(schema, obj)
        if managed is None:
            manager = write.manager("Update")
            managed = apply.track_update(schema, kind, {}, obj, manager, timestamp())
        if managed:
            obj["metadata"]["managedFields"] = managed
        if kind.plural == "pods":
            admit_pod(self.store, kind, obj)
        status = initial_status(kind, obj) if kind.definition is None else None
        if status is not None:
            obj["status"] = status
        self._validate(write, obj, None)
        if self.find(kind, write.namespace, name):
            raise errors.already_exists(kind, name)
        return obj if write.options.dry_run else self.store.put(kind.storage_key, obj)

    def _update(
        self, write: Write, old: Object, new: Object, managed: list[Object] | None
    ) -> Object:
        kind, schema = write.kind, schema_of(write.kind)
        _check_identity(kind, old, new["metadata"])
        given = new["metadata"].get("managedFields")
        if given is not None and given == old["metadata"].get("managedFields"):
            del new["metadata"]["managedFields"]
        if kind.definition is None:
            set_defaults(kind, new)
        apply_defaults(schema, new)
        if managed is None:
            manager = write.manager("Update")
            managed = apply.track_update(schema, kind, old, new, manager, timestamp())
        new = _confine(kind, old, new, write.subresource)
        new["metadata"]["managedFields"] = managed
        if "generation" in old["metadata"]:
            changed = spec_differs(old, new, kind.status)
            new["metadata"]["generation"] = old["metadata"]["generation"] + int(changed)
        refuse_late_finalizers(kind, old, new)
        self._validate(write, new, old)
        if write.options.dry_run:
            return new
        if _is_let_go(kind, new["metadata"]):
            self.store.remove(kind.storage_key, new["metadata"].get("namespace", ""), write.name)
            return new
        return old if same_content(old, new) else self.store.put(kind.storage_key, new)

    def _validate(self, write: Write, obj: Object, old: Object | None) -> None:
        kind = write.kind
        if write.final_check is not None:
            write.final_check(kind, obj, old)
        found = validate_metadata(kind, obj["metadata"])
        if kind.definition is not None:
            found += validate(schema_of(kind), obj, old)
        else:
            found += check_types(kind, obj)
            if not write.subresource and not found:
                found += validate_builtin(kind, obj, old)
            if kind.plural == "customresourcedefinitions":
                found += validate_definition(obj)
        if found:
            raise errors.invalid(kind, obj["metadata"].get("name", ""), found)


def _check_name(meta: dict[str, Any], asked: str) -> None:
    given = meta.setdefault("name", asked)
    if given != asked:
        raise errors.bad_request(
            f"the name of the object ({given}) does not match the name on the URL ({asked})"
        )


def _check_identity(kind: Kind, old: Object, meta: dict[str, Any]) -> None:
    name, stored = old["metadata"]["name"], old["metadata"]
    _check_name(meta, name)
    if meta.get("resourceVersion", stored["resourceVersion"]) != stored["resourceVersion"]:
        raise errors.conflict(kind, name, errors.MODIFIED)
    if meta.get("uid", stored["uid"]) != stored["uid"]:
        text = f"Invalid value: {json.dumps(meta['uid'])}: field is immutable"
        raise errors.invalid(kind, name, [FieldError("metadata.uid", text)])


def _is_let_go(kind: Kind, meta: dict[str, Any]) -> bool:
    """Whether the last finalizer of an object under deletion is gone."""
    held = kind.plural == "namespaces" or bool(meta.get("finalizers"))
    waits = meta.get("deletionGracePeriodSeconds", 0) > 0
    return "deletionTimestamp" in meta and not held and not waits


def _confine(kind: Kind, old: Object, new: Object, subresource: str) -> Object:
    """Keep what this endpoint does not write: the status, or everything but the status."""
    custom = kind.definition is not None
    if subresource == "status":
        meta = old["metadata"] if custom else kept_metadata(old["metadata"], new["metadata"])
        confined = {**old, "metadata": dict(meta)}
        confined.pop("status", None)
        return {**confined, "status": new["status"]} if "status" in new else confined
    confined = {**new, "metadata": kept_metadata(old["metadata"], new["metadata"])}
    if kind.status:
        confined.pop("status", None)
        if "status" in old:
            confined["status"] = old["status"]
    return confined

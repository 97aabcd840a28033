"""What a write does: admit -> default -> manage fields -> validate -> store.

Everything here runs without awaiting, so each request sees and leaves one consistent state.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from finetune_api.field_errors import FieldError
from finetune_api.structural import apply_defaults, validate
from finetune_local.apiserver import apply, errors, patches
from finetune_local.apiserver.decoding import (
    check_metadata_types,
    check_type,
    check_types,
    drop_unknown_fields,
)
from finetune_local.apiserver.definitions import validate_definition
from finetune_local.apiserver.kinds import Kind, Object, Registry
from finetune_local.apiserver.objects import (
    kept_metadata,
    new_metadata,
    refuse_late_finalizers,
    same_content,
    spec_differs,
    timestamp,
    validate_metadata,
)
from finetune_local.apiserver.podspec import admit_service_account
from finetune_local.apiserver.request import WriteOptions
from finetune_local.apiserver.schemas import schema_of
from finetune_local.apiserver.storage import Store
from finetune_local.apiserver.strategies import (
    KEEPS_STATUS_ON_CREATE,
    NEEDS_VERSION,
    initial_status,
    set_defaults,
    validate_builtin,
)

Admission = Callable[[Kind, Object, Object | None], None]
"""A last word on a write: (kind, new object, stored object or None); raises StatusError."""

_ACCEPTED_PATCHES = (
    patches.JSON_PATCH,
    patches.MERGE_PATCH,
    patches.STRATEGIC_MERGE_PATCH,
    patches.APPLY_PATCH,
)


class Resources:
    """Create, replace and patch objects of every stored kind."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store = store
        self.registry = registry

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """The stored object. Raises StatusError 404."""
        found = self.store.get(kind.storage_key, namespace, name)
        if found is None:
            raise errors.not_found(kind, name)
        return found

    def create(
        self,
        kind: Kind,
        namespace: str,
        body: Any,
        options: WriteOptions,
        admission: Admission | None = None,
    ) -> Object:
        """Store a new object. Raises StatusError."""
        obj = self._admit(kind, namespace, body, options)
        if obj["metadata"].get("resourceVersion"):
            raise errors.internal("resourceVersion should not be set on objects to be created")
        return self._create(kind, namespace, obj, options, admission, None)

    def _create(
        self,
        kind: Kind,
        namespace: str,
        obj: Object,
        options: WriteOptions,
        admission: Admission | None,
        managed: list[Object] | None,
    ) -> Object:
        obj["metadata"] = new_metadata(kind, obj["metadata"], namespace)
        name = obj["metadata"].get("name", "")
        self._check_namespace(kind, namespace, name)
        if kind.definition is None:
            set_defaults(kind, obj)
        if kind.plural == "pods":
            self._admit_pod(kind, namespace, obj)
        if kind.status and kind.plural not in KEEPS_STATUS_ON_CREATE:
            obj.pop("status", None)
        apply_defaults(schema_of(kind), obj)
        if managed is None:
            manager = apply.Manager(options.field_manager, "Update", kind.api_version)
            managed = apply.track_update(schema_of(kind), kind, {}, obj, manager, timestamp())
        if managed:
            obj["metadata"]["managedFields"] = managed
        status = initial_status(kind, obj) if kind.definition is None else None
        if status is not None:
            obj["status"] = status
        if admission is not None:
            admission(kind, obj, None)
        self._validate(kind, obj, None, "")
        if self.store.get(kind.storage_key, namespace if kind.namespaced else "", name):
            raise errors.already_exists(kind, name)
        return obj if options.dry_run else self.store.put(kind.storage_key, obj)

    def replace(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Any,
        options: WriteOptions,
        subresource: str = "",
        admission: Admission | None = None,
    ) -> Object:
        """Store a whole object (PUT). Raises StatusError."""
        old = self.get(kind, namespace, name)
        new = self._admit(kind, namespace, body, options)
        meta = new["metadata"]
        if meta.setdefault("name", name) != name:
            raise errors.bad_request(_other_name(meta["name"], name))
        custom = kind.definition is not None
        if not meta.get("resourceVersion") and (custom or kind.plural in NEEDS_VERSION):
            raise errors.version_required(kind, name)
        if meta.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            why = (
                f"UID in precondition: {meta['uid']}, UID in object meta: {old['metadata']['uid']}"
            )
            raise errors.conflict(kind, name, f"Precondition failed: {why}")
        return self._update(kind, old, new, options, subresource, admission)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        media_type: str,
        body: Any,
        options: WriteOptions,
        subresource: str = "",
        admission: Admission | None = None,
    ) -> Object:
        """Apply a patch of any of the four types; an apply creates what is not there."""
        if media_type not in _ACCEPTED_PATCHES or (
            media_type == patches.STRATEGIC_MERGE_PATCH and kind.definition is not None
        ):
            known = [p for p in _ACCEPTED_PATCHES if p != patches.STRATEGIC_MERGE_PATCH]
            raise errors.unsupported_media_type(known)
        if media_type == patches.APPLY_PATCH:
            return self._apply(kind, namespace, name, body, options, subresource, admission)
        old = self.get(kind, namespace, name)
        if media_type == patches.JSON_PATCH:
            new = patches.json_patch(old, body)
        elif media_type == patches.MERGE_PATCH:
            new = patches.merge_patch(old, body)
        else:
            new = patches.strategic_merge_patch(schema_of(kind), old, body)
        new = self._admit(kind, namespace, copy.deepcopy(new), options, patched=True)
        return self._update(kind, old, new, options, subresource, admission)

    def _apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Any,
        options: WriteOptions,
        subresource: str,
        admission: Admission | None,
    ) -> Object:
        config = self._admit_applied(kind, namespace, body)
        meta = config["metadata"]
        if meta.get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        if meta.setdefault("name", name) != name:
            raise errors.bad_request(_other_name(meta["name"], name))
        manager = apply.Manager(options.field_manager, "Apply", kind.api_version, subresource)
        old = self.store.get(kind.storage_key, namespace if kind.namespaced else "", name)
        if old is None and subresource:
            raise errors.not_found(kind, name)
        if old is None and meta.get("uid"):
            why = f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing"
            raise errors.conflict(kind, name, f"{why} object was found")
        new = apply.apply(
            schema_of(kind), kind, old or {}, config, manager, options.force, timestamp()
        )
        managed = new["metadata"]["managedFields"]
        if old is None:
            return self._create(kind, namespace, copy.deepcopy(new), options, admission, managed)
        return self._update(kind, old, copy.deepcopy(new), options, subresource, admission, managed)

    def _admit_applied(self, kind: Kind, namespace: str, body: Any) -> Object:
        """Admit an applied configuration: all it names must be in the schema."""
        if not isinstance(body, dict) or not body.get("kind"):
            raise errors.bad_request("invalid object type: /, Kind=")
        meta = body.get("metadata") or {}
        found = WriteOptions("", validation="Warn")
        config = self._admit(kind, namespace, body, found)
        if found.warnings:
            path = found.warnings[0].partition('"')[2].rstrip('"')
            raise errors.internal(
                f"failed to create typed patch object ({meta.get('namespace', '')}/"
                f"{meta.get('name', '')}; {kind.api_version}, Kind={kind.kind}): .{path}: "
                "field not declared in schema"
            )
        return config

    def _admit(
        self, kind: Kind, namespace: str, body: Any, options: WriteOptions, patched: bool = False
    ) -> Object:
        """Check that the body is an object of this kind and place, and drop unknown fields."""
        if not isinstance(body, dict):
            raise errors.bad_request(f"the body is not a {kind.kind} object")
        check_type(kind, body)
        obj: Object = {**body, "apiVersion": kind.api_version, "kind": kind.kind}
        obj["metadata"] = dict(obj.get("metadata") or {})
        drop_unknown_fields(kind, obj, options, patched)
        check_metadata_types(kind, obj["metadata"])
        there = obj["metadata"].get("namespace", namespace)
        if kind.namespaced and there != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        return obj

    def _update(
        self,
        kind: Kind,
        old: Object,
        new: Object,
        options: WriteOptions,
        subresource: str,
        admission: Admission | None,
        managed: list[Object] | None = None,
    ) -> Object:
        name = old["metadata"]["name"]
        _check_identity(kind, old, new["metadata"])
        given = new["metadata"].get("managedFields")
        if given is not None and given == old["metadata"].get("managedFields"):
            del new["metadata"]["managedFields"]
        if kind.definition is None:
            set_defaults(kind, new)
        apply_defaults(schema_of(kind), new)
        if managed is None:
            manager = apply.Manager(options.field_manager, "Update", kind.api_version, subresource)
            managed = apply.track_update(schema_of(kind), kind, old, new, manager, timestamp())
        new = _confine(kind, old, new, subresource)
        new["metadata"]["managedFields"] = managed
        if "generation" in old["metadata"]:
            changed = spec_differs(old, new, kind.status)
            new["metadata"]["generation"] = old["metadata"]["generation"] + int(changed)
        if admission is not None:
            admission(kind, new, old)
        refuse_late_finalizers(kind, old, new)
        self._validate(kind, new, old, subresource)
        meta = new["metadata"]
        if "deletionTimestamp" in meta and "finalizers" not in meta:
            finished = meta.get("deletionGracePeriodSeconds", 0) == 0
            if finished and not self._held(kind, new):
                return self._finish(kind, new, name, options)
        if same_content(old, new):
            return old
        return new if options.dry_run else self.store.put(kind.storage_key, new)

    @staticmethod
    def _held(kind: Kind, obj: Object) -> bool:
        return kind.plural == "namespaces" and bool(obj.get("spec", {}).get("finalizers"))

    def _finish(self, kind: Kind, obj: Object, name: str, options: WriteOptions) -> Object:
        if not options.dry_run:
            self.store.remove(kind.storage_key, obj["metadata"].get("namespace", ""), name)
        return obj

    def _validate(self, kind: Kind, obj: Object, old: Object | None, subresource: str) -> None:
        found = validate_metadata(kind, obj["metadata"])
        if kind.definition is not None:
            found += validate(schema_of(kind), obj, old)
        else:
            found += check_types(kind, obj)
            if not subresource and not found:
                found += validate_builtin(kind, obj, old)
            if kind.plural == "customresourcedefinitions":
                found += validate_definition(obj)
        if found:
            raise errors.invalid(kind, obj["metadata"].get("name", ""), found)

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        namespaces = self.registry.find("", "v1", "namespaces")
        assert namespaces is not None
        home = self.get(namespaces, "", namespace)
        if "deletionTimestamp" in home["metadata"]:
            raise errors.StatusError(
                403,
                "Forbidden",
                f'{kind.resource_name} "{name}" is forbidden: unable to create new content in '
                f"namespace {namespace} because it is being terminated",
                details={
                    "name": name,
                    "group": kind.group,
                    "kind": kind.plural,
                    "causes": [
                        {
                            "reason": "NamespaceTerminating",
                            "message": f"namespace {namespace} is being terminated",
                            "field": "metadata.namespace",
                        }
                    ],
                },
            )

    def _admit_pod(self, kind: Kind, namespace: str, pod: Object) -> None:
        spec = pod.setdefault("spec", {})
        account_name = spec.setdefault("serviceAccountName", "default")
        spec["serviceAccount"] = account_name
        account = self.store.get("/serviceaccounts", namespace, account_name)
        if account is None:
            why = f'error looking up service account {namespace}/{account_name}: serviceaccount "'
            raise errors.forbidden(kind, pod["metadata"]["name"], f'{why}{account_name}" not found')
        admit_service_account(spec, account)
        priority = 0
        if class_name := spec.get("priorityClassName"):
            found = self.store.get("scheduling.k8s.io/priorityclasses", "", class_name)
            if found is None:
                why = f"no PriorityClass with name {class_name} was found"
                raise errors.forbidden(kind, pod["metadata"]["name"], why)
            priority = found["value"]
        spec["priority"] = priority
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        spec.setdefault("enableServiceLinks", True)


def _other_name(given: str, asked: str) -> str:
    return f"the name of the object ({given}) does not match the name on the URL ({asked})"


def _check_identity(kind: Kind, old: Object, meta: dict[str, Any]) -> None:
    name, stored = old["metadata"]["name"], old["metadata"]
    if meta.setdefault("name", name) != name:
        raise errors.bad_request(_other_name(meta["name"], name))
    if meta.get("resourceVersion", stored["resourceVersion"]) != stored["resourceVersion"]:
        raise errors.conflict(kind, name, errors.MODIFIED)
    if meta.get("uid", stored["uid"]) != stored["uid"]:
        text = f"Invalid value: {json.dumps(meta['uid'])}: field is immutable"
        raise errors.invalid(kind, name, [FieldError("metadata.uid", text)])


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

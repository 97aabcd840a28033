"""Object metadata as the server keeps it: names, uids, timestamps, generation."""

from __future__ import annotations

import json
import random
import re
import uuid
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.kinds.errors import invalid
from kube_emulator.timestamps import timestamp
from kube_schema.field_errors import FieldError

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_GENERATED = "bcdfghjklmnpqrstvwxz2456789"

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    rf"for validation is '{_SUBDOMAIN}')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)


def new_metadata(kind: Kind, given: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The metadata of an object that is being created."""
    meta = {k: v for k, v in given.items() if k not in _SERVER_OWNED}
    if not meta.get("name") and meta.get("generateName"):
        suffix = "".join(random.choices(_GENERATED, k=5))
        meta["name"] = meta["generateName"][:58] + suffix
    if kind.namespaced:
        meta["namespace"] = namespace
    if kind.generation or kind.definition is not None:
        meta["generation"] = 1
    return {**meta, "uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}


_SERVER_OWNED = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
)
_KEPT = (*_SERVER_OWNED, "name", "namespace", "generateName")


def kept_metadata(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an update: what only the server sets comes from the stored object."""
    meta = {k: v for k, v in new.items() if k not in _KEPT}
    return {**{k: old[k] for k in _KEPT if k in old}, **meta}


def validate_metadata(kind: Kind, meta: dict[str, Any]) -> list[FieldError]:
    """Check name, labels, and finalizers of an object."""
    name = meta.get("name", "")
    if not name:
        text = "Required value: name or generateName is required"
        return [FieldError("metadata.name", text, "FieldValueRequired")]
    return [
        *_check_name(kind, name),
        *_check_labels(meta.get("labels") or {}),
        *_check_annotations(meta.get("annotations") or {}),
    ]


def _check_name(kind: Kind, name: str) -> list[FieldError]:
    def refuse(why: str) -> list[FieldError]:
        return [FieldError("metadata.name", f"Invalid value: {json.dumps(name)}: {why}")]

    if kind.group == "rbac.authorization.k8s.io":
        if "/" in name or "%" in name or name in (".", ".."):
            return refuse("may not contain '/' or '%'")
        return []
    label = kind.plural in ("namespaces", "services") and not kind.group
    limit, pattern, text = (
        (63, _LABEL, _LABEL_TEXT) if label else (253, _SUBDOMAIN, _SUBDOMAIN_TEXT)
    )
    if len(name) > limit:
        return refuse(f"must be no more than {limit} bytes")
    return [] if re.fullmatch(pattern, name) else refuse(text)


_LABEL_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"


def _check_labels(labels: dict[str, str]) -> list[FieldError]:
    found = [e for key in labels for e in _check_key("metadata.labels", key)]
    for value in labels.values():
        if len(value) > 63:
            why = "must be no more than 63 bytes"
        elif not re.fullmatch(_LABEL_VALUE, value):
            why = (
                "a valid label must be an empty string or consist of alphanumeric characters, '-', "
                "'_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',"
                "  or 'my_value',  or '12345', regex used for validation is "
                f"'{_LABEL_VALUE}')"
            )
        else:
            continue
        found.append(FieldError("metadata.labels", f"Invalid value: {json.dumps(value)}: {why}"))
    return found


def same_content(old: Object, new: Object) -> bool:
    """Whether a write would change nothing but versions and the managers' timestamps."""
    return _comparable(old) == _comparable(new)


def _comparable(obj: Object) -> Object:
    meta = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    managed = [
        {k: v for k, v in entry.items() if k != "time"} for entry in meta.pop("managedFields", [])
    ]
    return {**obj, "metadata": {**meta, "managedFields": managed}}


def spec_differs(old: Object, new: Object, status: bool) -> bool:
    """Whether an update changes what metadata.generation counts."""
    outside = {"metadata", "status"} if status else {"metadata"}
    return {k: v for k, v in old.items() if k not in outside} != {
        k: v for k, v in new.items() if k not in outside
    }


_KEY = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ANNOTATIONS_LIMIT = 256 * 1024


def _check_key(field: str, key: str) -> list[FieldError]:
    prefix, slash, name = key.rpartition("/")
    fine = len(name) <= 63 and re.fullmatch(_KEY, name)
    if fine and (not slash or re.fullmatch(_SUBDOMAIN, prefix)):
        return []
    why = (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and "
        "end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex "
        f"used for validation is '{_KEY}')"
    )
    return [FieldError(field, f"Invalid value: {json.dumps(key)}: {why}")]


def _check_annotations(annotations: dict[str, str]) -> list[FieldError]:
    found = [e for key in annotations for e in _check_key("metadata.annotations", key.lower())]
    if sum(len(k) + len(v) for k, v in annotations.items()) > _ANNOTATIONS_LIMIT:
        text = f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes"
        found.append(FieldError("metadata.annotations", text, "FieldValueTooLong"))
    return found


def refuse_late_finalizers(kind: Kind, old: Object, new: Object) -> None:
    """What is being deleted gets no new finalizers. Raises StatusError 422."""
    if "deletionTimestamp" not in old["metadata"]:
        return
    known = old["metadata"].get("finalizers", [])
    late = [f for f in new["metadata"].get("finalizers", []) if f not in known]
    if late:
        shown = ", ".join(json.dumps(name) for name in late)
        text = (
            "Forbidden: no new finalizers can be added if the object is being deleted, found new "
            f"finalizers []string{{{shown}}}"
        )
        error = FieldError("metadata.finalizers", text, "FieldValueForbidden")
        raise invalid(kind, old["metadata"]["name"], [error])

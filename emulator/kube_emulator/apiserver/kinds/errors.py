"""Refusals, as `meta/v1 Status` objects worded like the real server's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Kind
from kube_schema.field_errors import FieldError


class StatusError(Exception):
    """A request is refused; `body()` is the Status object the client gets."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            **({"reason": self.reason} if self.reason else {}),
        }
        if self.details is not None:
            status["details"] = self.details
        return {**status, "code": self.code}


def _details(kind: Kind, name: str, **extra: Any) -> dict[str, Any]:
    group = {"group": kind.group} if kind.group else {}
    return {**({"name": name} if name else {}), **group, "kind": kind.plural, **extra}


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(kind: Kind, name: str, why: str, **details: Any) -> StatusError:
    message = f'{kind.resource_name} "{name}" is forbidden: {why}'
    return StatusError(403, "Forbidden", message, details=_details(kind, name, **details))


def page_not_found() -> StatusError:
    message = "the server could not find the requested resource"
    return StatusError(404, "NotFound", message, details={})


def not_found(kind: Kind, name: str) -> StatusError:
    message = f'{kind.resource_name} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(kind, name))


def role_not_found(resource: str, group: str, name: str) -> StatusError:
    """What a binding refers to is not there."""
    details = {"name": name, "group": group, "kind": resource}
    return StatusError(404, "NotFound", f'{resource}.{group} "{name}" not found', details=details)


def method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, details={})


def already_exists(kind: Kind, name: str) -> StatusError:
    message = f'{kind.resource_name} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details=_details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {kind.resource_name} "{name}": {why}'
    return StatusError(409, "Conflict", message, details=_details(kind, name))


def precondition_failed(kind: Kind, name: str, why: str) -> StatusError:
    """Refuse a deletion; here the real server names the kind where others name the resource."""
    group = {"group": kind.group} if kind.group else {}
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    message = f'Operation cannot be fulfilled on {qualified} "{name}": {why}'
    return StatusError(409, "Conflict", message, details={"name": name, **group, "kind": kind.kind})


MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def apply_conflict(causes: Sequence[tuple[str, str]]) -> StatusError:
    """Refuse a server-side apply; `causes` are (manager as shown, field path) pairs."""
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: conflict with {causes[0][0]}: {causes[0][1]}"
    else:
        lines = []
        for manager in sorted({owner for owner, _ in causes}):
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {path}" for owner, path in causes if owner == manager]
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    details = {
        "causes": [
            {"reason": "FieldManagerConflict", "message": f"conflict with {m}", "field": path}
            for m, path in causes
        ]
    }
    return StatusError(409, "Conflict", message, details=details)


def expired(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return StatusError(415, "UnsupportedMediaType", message)


def internal(message: str) -> StatusError:
    """A refusal the real server answers with 500 and no reason."""
    return StatusError(500, "", message)


def invalid_patch(detail: str) -> StatusError:
    cause = {"reason": "FieldValueInvalid", "message": detail, "field": "patch"}
    message = f' "" is invalid: patch: {detail}'
    return StatusError(422, "Invalid", message, details={"causes": [cause]})


def invalid_options(options: str, field: str, message: str, reason: str) -> StatusError:
    """Refuse a request's options: 422 about `CreateOptions`, `PatchOptions`, ..."""
    cause = {"reason": reason, "message": message, "field": field}
    return StatusError(
        422,
        "Invalid",
        f'{options}.meta.k8s.io "" is invalid: {field}: {message}',
        details={"group": "meta.k8s.io", "kind": options, "causes": [cause]},
    )


def version_required(kind: Kind, name: str) -> StatusError:
    text = "Invalid value: 0: must be specified for an update"
    cause = {
        "reason": "FieldValueInvalid",
        "message": text,
        "field": "metadata.resourceVersion",
    }
    message = f'{kind.resource_name} "{name}" is invalid: metadata.resourceVersion: {text}'
    return StatusError(422, "Invalid", message, details=_details(kind, name, causes=[cause]))


def invalid(kind: Kind, name: str, errors: Sequence[FieldError]) -> StatusError:
    """Refuse an object for its fields: 422 with one cause per field."""
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    texts = list(dict.fromkeys(str(error) for error in errors))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    causes = [{"reason": e.kind, "message": e.message, "field": e.path or "<nil>"} for e in errors]
    group = {"group": kind.group} if kind.group else {}
    return StatusError(
        422,
        "Invalid",
        f'{qualified} "{name}" is invalid: {joined}',
        details={**({"name": name} if name else {}), **group, "kind": kind.kind, "causes": causes},
    )


def too_large_version(wanted: int, current: int) -> StatusError:
    message = f"Too large resource version: {wanted}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504, "Timeout", f"Timeout: {message}", details={"causes": [cause], "retryAfterSeconds": 1}
    )


def not_implemented(what: str) -> StatusError:
    message = f"this API server is an emulation without {what}; use a real cluster for it"
    return StatusError(501, "NotImplemented", message)


def field_manager_required() -> StatusError:
    text = "Required value: is required for apply patch"
    return invalid_options("PatchOptions", "fieldManager", text, "FieldValueRequired")

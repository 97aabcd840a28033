"""What a request asks for: verb and resource from its path, options from its query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kube_emulator.apiserver.kinds import errors

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class ResourceRequest:
    """A request for a resource, in the words authorization rules use."""

    verb: str
    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(method: str, path: str, query: Mapping[str, str]) -> ResourceRequest | None:
    """Read a resource request from its path; None for every other path."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 2:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in ("status", "finalize"):
            rest = rest[2:]
    if len(rest) > 3:
        raise errors.page_not_found()
    resource, name, subresource = (*rest, "", "")[:3]
    verb = _verb(method, name, query)
    if not name and verb in ("list", "watch", "deletecollection"):
        name = _named(query)
    return ResourceRequest(verb, group, version, resource, namespace, name, subresource)


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD"):
        if name:
            return "get"
        return "watch" if flag(query, "watch") else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    if method not in _VERBS:
        raise errors.method_not_allowed()
    return _VERBS[method]


def _named(query: Mapping[str, str]) -> str:
    selector = query.get("fieldSelector", "")
    key, _, value = selector.partition("=")
    return value.lstrip("=") if key == "metadata.name" and "," not in value else ""


def flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true", "t")


@dataclass
class WriteOptions:
    """How a write is to be done; `warnings` collects what the client should be told."""

    field_manager: str
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False
    warnings: list[str] = field(default_factory=list)


def write_options(query: Mapping[str, str], user_agent: str, kind: str) -> WriteOptions:
    """Read the query of a write, as `kind` (CreateOptions, ...). Raises StatusError 422."""
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        text = f'Unsupported value: ["{dry_run}"]: supported values: "All"'
        raise errors.invalid_options(kind, "dryRun", text, "FieldValueNotSupported")
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        known = '"", "Ignore", "Strict", "Warn"'
        text = f'Unsupported value: "{validation}": supported values: {known}'
        raise errors.invalid_options(kind, "fieldValidation", text, "FieldValueNotSupported")
    manager = query.get("fieldManager") or user_agent.partition("/")[0] or "unknown"
    return WriteOptions(manager[:128], dry_run == "All", validation, flag(query, "force"))

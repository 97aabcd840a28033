"""Reviews: questions about authentication and authorization, answered and not stored."""

from __future__ import annotations

from typing import Any

from kube_emulator.apiserver.access.authn import Authenticator, User
from kube_emulator.apiserver.access.rbac import Authorizer
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.wire.request import ResourceRequest


def review(
    kind: Kind, body: Object, user: User, authorizer: Authorizer, authenticator: Authenticator
) -> Object:
    """Answer one review object with its status filled in."""
    spec = body.get("spec") or {}
    match kind.kind:
        case "SelfSubjectAccessReview":
            status = _access(spec, user, authorizer)
        case "SubjectAccessReview":
            subject = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
            status = _access(spec, subject, authorizer)
        case "SelfSubjectRulesReview":
            status = _rules(spec.get("namespace", ""), user, authorizer)
        case _:
            status = _token(spec, authenticator)
    answered = {**body, "apiVersion": kind.api_version, "kind": kind.kind, "status": status}
    return {**answered, "metadata": body.get("metadata") or {}}


def _access(spec: dict[str, Any], user: User, authorizer: Authorizer) -> dict[str, Any]:
    if path := spec.get("nonResourceAttributes"):
        return {"allowed": authorizer.allows_path(user, path.get("verb", ""), path.get("path", ""))}
    asked = spec.get("resourceAttributes") or {}
    request = ResourceRequest(
        asked.get("verb", ""),
        asked.get("group", ""),
        asked.get("version", ""),
        asked.get("resource", ""),
        asked.get("namespace", ""),
        asked.get("name", ""),
        asked.get("subresource", ""),
    )
    return {"allowed": authorizer.allows(user, request)}


def _rules(namespace: str, user: User, authorizer: Authorizer) -> dict[str, Any]:
    rules = authorizer.rules_for(user, namespace)
    return {
        "resourceRules": [r for r in rules if "resources" in r],
        "nonResourceRules": [r for r in rules if "nonResourceURLs" in r],
        "incomplete": False,
    }


def _token(spec: dict[str, Any], authenticator: Authenticator) -> dict[str, Any]:
    user = authenticator.user_of(spec.get("token", ""), spec.get("audiences"))
    if user is None:
        return {"authenticated": False, "user": {}, "error": "invalid bearer token"}
    shown = {"username": user.name, "groups": list(user.groups), "uid": user.uid}
    return {"authenticated": True, "user": shown}

"""Role-based access control, and that nobody grants more than they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kube_emulator.apiserver.access.authn import User
from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.objects.storage import Store
from kube_emulator.apiserver.wire.request import ResourceRequest

GROUP = "rbac.authorization.k8s.io"
Rule = dict[str, Any]

_EVERYTHING: Rule = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
_READABLE_URLS = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi"]
_READABLE_URLS += ["/openapi/*", "/readyz", "/version", "/version/"]

BOOTSTRAP: tuple[tuple[str, list[Rule], str], ...] = (
    ("cluster-admin", [_EVERYTHING, {"nonResourceURLs": ["*"], "verbs": ["*"]}], "system:masters"),
    (
        "system:discovery",
        [{"nonResourceURLs": _READABLE_URLS, "verbs": ["get"]}],
        "system:authenticated",
    ),
)
"""(ClusterRole, rules, the group it is bound to) present from the start."""


def bootstrap_objects() -> Iterator[tuple[str, Object]]:
    """The ClusterRoles and ClusterRoleBindings of a new cluster, as (plural, body)."""
    for name, rules, group in BOOTSTRAP:
        meta = {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
        yield "clusterroles", {"metadata": dict(meta), "rules": rules}
        yield (
            "clusterrolebindings",
            {
                "metadata": dict(meta),
                "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group}],
            },
        )


class Authorizer:
    """Answers from the roles and bindings that are stored now."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def rules_for(self, user: User, namespace: str) -> list[Rule]:
        """The rules a user holds: cluster-wide ones, and those of the namespace if one is given."""
        rules: list[Rule] = []
        for binding in self._store.list(f"{GROUP}/clusterrolebindings"):
            rules += self._bound_rules(user, binding, "")
        if namespace:
            for binding in self._store.list(f"{GROUP}/rolebindings", namespace):
                rules += self._bound_rules(user, binding, namespace)
        return rules

    def _bound_rules(self, user: User, binding: Object, namespace: str) -> list[Rule]:
        subjects = binding.get("subjects") or []
        if not any(_is_subject(user, subject, namespace) for subject in subjects):
            return []
        return self.role_rules(binding["roleRef"], namespace)

    def role_rules(self, reference: dict[str, str], namespace: str) -> list[Rule]:
        """The rules of a role; none if it is not there."""
        return list((self._role(reference, namespace) or {}).get("rules") or [])

    def _role(self, reference: dict[str, str], namespace: str) -> Object | None:
        cluster = reference["kind"] == "ClusterRole"
        plural, home = ("clusterroles", "") if cluster else ("roles", namespace)
        return self._store.get(f"{GROUP}/{plural}", home, reference["name"])

    def allows(self, user: User, request: ResourceRequest) -> bool:
        if user.is_admin:
            return True
        return any(_covers(rule, request) for rule in self.rules_for(user, request.namespace))

    def allows_path(self, user: User, verb: str, path: str) -> bool:
        """Whether a user may read a path that is no resource."""
        if user.is_admin:
            return True
        return any(
            _in(rule.get("verbs", []), verb)
            and any(_url_matches(url, path) for url in rule.get("nonResourceURLs", []))
            for rule in self.rules_for(user, "")
        )

    def authorize(self, user: User, request: ResourceRequest) -> None:
        """Raises StatusError 403."""
        if not self.allows(user, request):
            raise _denied(user, request)

    def check_grant(self, user: User, kind: Kind, obj: Object, old: Object | None) -> None:
        """Refuse (403) to write a role or binding that grants what the user does not hold, and
        (404) a binding of what nobody knows yet."""
        if kind.group != GROUP:
            return
        if obj.get("aggregationRule"):
            raise errors.not_implemented("aggregated ClusterRoles")
        if user.is_admin:
            return
        namespace = obj["metadata"].get("namespace", "")
        name = obj["metadata"].get("name", "")
        if kind.plural in ("roles", "clusterroles"):
            if old is not None and old.get("rules") == obj.get("rules"):
                return
            verb, resource, granted = "escalate", kind.plural, obj.get("rules") or []
            target = name
        else:
            if old is not None and old.get("subjects") == obj.get("subjects"):
                return
            reference = obj["roleRef"]
            verb, target = "bind", reference["name"]
            resource = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
            granted = self.role_rules(reference, namespace)
        asked = ResourceRequest(verb, GROUP, kind.version, resource, namespace, target)
        if self.allows(user, asked):
            return
        if verb == "bind" and self._role(obj["roleRef"], namespace) is None:
            raise errors.role_not_found(resource, GROUP, target)
        held = self.rules_for(user, namespace)
        missing = [rule for rule in _atoms(granted) if not any(_holds(h, rule) for h in held)]
        if missing:
            raise errors.forbidden(kind, name, _escalation(user, missing))


def _is_subject(user: User, subject: dict[str, str], namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return subject["name"] == user.name
        case "Group":
            return subject["name"] in user.groups
        case _:
            home = subject.get("namespace") or namespace
            return user.name == f"system:serviceaccount:{home}:{subject['name']}"


def _in(allowed: list[str], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed


def _covers(rule: Rule, request: ResourceRequest) -> bool:
    sub = request.subresource
    resources = rule.get("resources", [])
    full = f"{request.resource}/{sub}" if sub else request.resource
    resource = _in(resources, full) or bool(sub and f"*/{sub}" in resources)
    names = rule.get("resourceNames") or []
    return (
        _in(rule.get("verbs", []), request.verb)
        and _in(rule.get("apiGroups", []), request.group)
        and resource
        and (not names or request.name in names)
    )


def _url_matches(pattern: str, path: str) -> bool:
    if pattern.endswith("*"):
        return path.startswith(pattern[:-1])
    return pattern == path


def _atoms(rules: list[Rule]) -> Iterator[Rule]:
    """Break rules into rules of one verb, group, resource and name each."""
    for rule in rules:
        for verb in rule.get("verbs", []):
            for url in rule.get("nonResourceURLs", []):
                yield {"verbs": [verb], "nonResourceURLs": [url]}
            for group in rule.get("apiGroups", []):
                for resource in rule.get("resources", []):
                    one = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                    for name in rule.get("resourceNames") or [None]:
                        yield {**one, "resourceNames": [name]} if name else one


def _holds(held: Rule, atom: Rule) -> bool:
    if "nonResourceURLs" in atom:
        url = atom["nonResourceURLs"][0]
        urls = held.get("nonResourceURLs", [])
        return _in(held["verbs"], atom["verbs"][0]) and any(_url_matches(u, url) for u in urls)
    resource, _, sub = atom["resources"][0].partition("/")
    names = atom.get("resourceNames")
    request = ResourceRequest(
        atom["verbs"][0],
        atom["apiGroups"][0],
        "",
        resource,
        name=names[0] if names else "",
        subresource=sub,
    )
    return _covers(held, request)


def _denied(user: User, request: ResourceRequest) -> errors.StatusError:
    sub = f"/{request.subresource}" if request.subresource else ""
    group = f".{request.group}" if request.group else ""
    where = (
        f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    )
    what = f"{request.resource}{group}"
    named = f'{what} "{request.name}"' if request.name else what
    message = (
        f'{named} is forbidden: User "{user.name}" cannot {request.verb} resource '
        f'"{request.resource}{sub}" in API group "{request.group}" {where}'
    )
    details = {"kind": request.resource}
    if request.name:
        details["name"] = request.name
    if request.group:
        details["group"] = request.group
    return errors.StatusError(403, "Forbidden", message, details=details)


def _escalation(user: User, missing: list[Rule]) -> str:
    groups = " ".join(f'"{group}"' for group in user.groups)
    lines = "\n".join(_rule_text(rule) for rule in missing)
    return (
        f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not '
        f"currently held:\n{lines}"
    )


def _rule_text(rule: Rule) -> str:
    fields = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("Verbs", "verbs"),
    )
    parts = [
        f"{shown}:[{' '.join(chr(34) + v + chr(34) for v in rule[key])}]"
        for shown, key in fields
        if rule.get(key)
    ]
    return "{" + ", ".join(parts) + "}"

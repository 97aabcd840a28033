"""Discovery: which groups, versions and resources are served, in the plain and aggregated form."""

from __future__ import annotations

from typing import Any

from kube_emulator.apiserver.kinds.catalogue import VERBS, Kind, Object, Registry
from kube_emulator.apiserver.kinds.schemas import KUBERNETES

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_STATUS_VERBS = ("get", "patch", "update")

VERSION: Object = {
    "major": KUBERNETES.split(".")[0],
    "minor": KUBERNETES.split(".")[1],
    "gitVersion": f"v{KUBERNETES}+emulated",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}


def wants_aggregated(accept: str) -> bool:
    """Whether the client prefers the aggregated form, which answers all in one request."""
    first = accept.partition(",")[0].replace(" ", "")
    return "as=APIGroupDiscoveryList" in first and "v=v2;" in first + ";"


def _subresources(kind: Kind) -> list[tuple[str, str, tuple[str, ...]]]:
    status = [("status", kind.kind, _STATUS_VERBS)] if kind.status else []
    return [*status, *kind.subresources]


def aggregated(registry: Registry, core: bool) -> Object:
    """An `APIGroupDiscoveryList` of the core group, or of all the others."""
    groups = {g: v for g, v in registry.groups().items() if (g == "") is core}
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": group, "creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [_aggregated_resource(kind) for kind in kinds],
                    }
                    for version, kinds in versions.items()
                ],
            }
            for group, versions in groups.items()
        ],
    }


def _gvk(kind: Kind, name: str) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": name}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _gvk(kind, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(VERBS),
        "shortNames": list(kind.short_names),
        "categories": list(kind.categories),
    }
    subresources = [
        {"subresource": name, "responseKind": _gvk(kind, sub_kind), "verbs": list(verbs)}
        for name, sub_kind, verbs in _subresources(kind)
    ]
    return {**found, "subresources": subresources} if subresources else found


def core_versions(address: str) -> Object:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(registry: Registry) -> Object:
    groups = [group_object(registry, name) for name in registry.groups() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group_object(registry: Registry, group: str) -> Object | None:
    """One `APIGroup`; None if it is not served."""
    versions = registry.groups().get(group)
    if not versions:
        return None
    listed = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": listed,
        "preferredVersion": listed[0],
    }


def resource_list(registry: Registry, group: str, version: str) -> Object | None:
    """The `APIResourceList` of one group version; None if it is not served."""
    kinds = registry.groups().get(group, {}).get(version)
    if not kinds:
        return None
    resources: list[dict[str, Any]] = []
    for kind in kinds:
        resources.append(
            {
                "name": kind.plural,
                "singularName": kind.singular,
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": list(VERBS),
                **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
                **({"categories": list(kind.categories)} if kind.categories else {}),
            }
        )
        for name, sub_kind, verbs in _subresources(kind):
            resources.append(
                {
                    "name": f"{kind.plural}/{name}",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": sub_kind,
                    "verbs": list(verbs),
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }

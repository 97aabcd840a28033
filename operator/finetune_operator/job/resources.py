"""Where the kinds that the operator reads and writes are served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.job import GROUP, KIND, PLURAL, VERSION


@dataclass(frozen=True)
class Resource:
    """Where a kind is served."""

    api_version: str
    plural: str

    @property
    def group(self) -> str:
        """Return the API group; "" for core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Return the API version without its group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """Return the URL path of the collection, of one object, or of its subresource."""
        parts = ["apis" if self.group else "api", self.api_version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


_RBAC = "rbac.authorization.k8s.io/v1"
POD = "Pod"
LEASE = "Lease"
EVENT = "Event"
NAMESPACE = "Namespace"
_COMMON = {
    POD: Resource("v1", "pods"),
    LEASE: Resource("coordination.k8s.io/v1", "leases"),
    "ConfigMap": Resource("v1", "configmaps"),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
    "Role": Resource(_RBAC, "roles"),
    "RoleBinding": Resource(_RBAC, "rolebindings"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
}


def children(made: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return the kinds of a job's children by kind; `made` are those of the backend."""
    return {**made, **_COMMON}


def resources(made: Mapping[str, Resource]) -> dict[str, Resource]:
    """Return every kind that the operator reads or writes; `made` are those of the backend."""
    return {
        KIND: Resource(f"{GROUP}/{VERSION}", PLURAL),
        **children(made),
        EVENT: Resource("v1", "events"),
        NAMESPACE: Resource("v1", "namespaces"),
    }

"""The resources this server knows: the built-in ones here, custom ones from their definitions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
"""What can be done with every kind."""


@dataclass(frozen=True)
class Kind:
    """One served version of one resource.

    `definition` is the CustomResourceDefinition's version entry, `schema` that of whole objects
    of it; both are None for a built-in.
    `generation` tells whether changes of the spec are counted in metadata.generation.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    generation: bool = False
    subresources: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    singular_name: str = ""
    list_kind_name: str = ""
    definition: Object | None = field(default=None, compare=False)
    schema: Object | None = field(default=None, compare=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.singular_name or self.kind.lower()

    @property
    def list_kind(self) -> str:
        return self.list_kind_name or f"{self.kind}List"

    @property
    def resource_name(self) -> str:
        """The resource as error messages name it: `pods`, `leases.coordination.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def storage_key(self) -> str:
        return f"{self.group}/{self.plural}"


_RBAC = "rbac.authorization.k8s.io"
_AUTHZ = "authorization.k8s.io"

BUILTIN: tuple[Kind, ...] = (
    Kind("", "v1", "Namespace", "namespaces", False, ("ns",), status=True),
    Kind("", "v1", "Node", "nodes", False, ("no",), status=True),
    Kind(
        "",
        "v1",
        "Pod",
        "pods",
        short_names=("po",),
        categories=("all",),
        status=True,
        generation=True,
        subresources=(
            ("binding", "Binding", ("create",)),
            ("eviction", "Eviction", ("create",)),
            ("log", "Pod", ("get",)),
        ),
    ),
    Kind("", "v1", "Service", "services", short_names=("svc",), categories=("all",), status=True),
    Kind(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        short_names=("sa",),
        subresources=(("token", "TokenRequest", ("create",)),),
    ),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "ConfigMap", "configmaps", short_names=("cm",)),
    Kind("", "v1", "Event", "events", short_names=("ev",)),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), status=True),
    Kind(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        short_names=("deploy",),
        categories=("all",),
        status=True,
        generation=True,
    ),
    Kind(
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        short_names=("rs",),
        categories=("all",),
        status=True,
        generation=True,
    ),
    Kind("coordination.k8s.io", "v1", "Lease", "leases"),
    Kind(_RBAC, "v1", "Role", "roles"),
    Kind(_RBAC, "v1", "RoleBinding", "rolebindings"),
    Kind(_RBAC, "v1", "ClusterRole", "clusterroles", False),
    Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", False),
    Kind(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        short_names=("netpol",),
        generation=True,
    ),
    Kind(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        False,
        ("pc",),
        generation=True,
    ),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        False,
        ("crd", "crds"),
        ("api-extensions",),
        status=True,
        generation=True,
    ),
)

NOT_EMULATED: dict[tuple[str, str], str] = {
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): "admission webhooks",
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): "admission webhooks",
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): "admission policies",
    ("", "resourcequotas"): "resource quotas",
    ("", "limitranges"): "limit ranges",
    ("", "persistentvolumes"): "persistent volumes",
    ("apps", "statefulsets"): "StatefulSets",
    ("apps", "daemonsets"): "DaemonSets",
    ("batch", "jobs"): "Jobs",
    ("batch", "cronjobs"): "CronJobs",
    ("networking.k8s.io", "ingresses"): "Ingresses",
    ("policy", "poddisruptionbudgets"): "PodDisruptionBudgets",
    ("events.k8s.io", "events"): "events.k8s.io (core/v1 Events are there)",
    (_AUTHZ, "selfsubjectaccessreviews"): "access reviews",
    (_AUTHZ, "selfsubjectrulesreviews"): "access reviews",
    (_AUTHZ, "subjectaccessreviews"): "access reviews",
    (_AUTHZ, "localsubjectaccessreviews"): "access reviews",
    ("authentication.k8s.io", "tokenreviews"): "token reviews",
}
"""Resources that exist on a real server and are refused here with 501, by name."""


class Registry:
    """What is served now: the built-in kinds, and those that definitions add and remove."""

    def __init__(self, kinds: Iterable[Kind] = BUILTIN) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        self._kinds[(kind.group, kind.version, kind.plural)] = kind

    def remove(self, group: str, plural: str) -> None:
        for key in [k for k in self._kinds if (k[0], k[2]) == (group, plural)]:
            del self._kinds[key]

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def all(self) -> list[Kind]:
        return list(self._kinds.values())

    def stored(self) -> list[Kind]:
        """Every kind once, in one of the versions it is served in."""
        return list({kind.storage_key: kind for kind in self.all()}.values())

    def groups(self) -> dict[str, dict[str, list[Kind]]]:
        """Kinds by group, then version, the core group (the empty name) first."""
        found: dict[str, dict[str, list[Kind]]] = {}
        for kind in self.all():
            found.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
        return found

"""What is particular about built-in kinds: defaults, initial status, validation, frozen fields.

A hand-picked part of the real server's: what operators, kubectl and Helm's charts rely on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.kinds.definitions import default_definition
from kube_emulator.apiserver.kinds.podspec import (
    default_pod_spec,
    default_requests,
    pod_status,
    validate_pod_spec,
    validate_pod_update,
)
from kube_schema.field_errors import FieldError

KEEPS_STATUS_ON_CREATE = ("nodes",)
_INITIAL_STATUS: dict[str, Callable[[Object], Object]] = {
    "pods": pod_status,
    "namespaces": lambda obj: {"phase": "Active"},
    "services": lambda obj: {"loadBalancer": {}},
    "deployments": lambda obj: {},
    "replicasets": lambda obj: {"replicas": 0},
    "persistentvolumeclaims": lambda obj: {"phase": "Pending"},
    "customresourcedefinitions": lambda obj: {
        "acceptedNames": {"kind": "", "plural": ""},
        "storedVersions": [v["name"] for v in obj["spec"].get("versions", []) if v.get("storage")],
    },
}

NEEDS_VERSION = ("leases", "customresourcedefinitions")
"""Built-ins whose PUT must carry a resourceVersion, as every custom resource's must."""


def initial_status(kind: Kind, obj: Object) -> Object | None:
    """The status a new object of a built-in kind starts with; None if it has none."""
    make = _INITIAL_STATUS.get(kind.plural)
    return make(obj) if make else None


def set_defaults(kind: Kind, obj: Object) -> None:
    """Fill in, in place, the defaults of a built-in kind."""
    spec = obj.get("spec")
    match kind.plural:
        case "pods" if isinstance(spec, dict):
            default_pod_spec(spec)
            default_requests(spec)
            spec.setdefault("enableServiceLinks", True)
        case "deployments" if isinstance(spec, dict):
            _default_deployment(spec)
        case "replicasets" if isinstance(spec, dict):
            spec.setdefault("replicas", 1)
            default_pod_spec(spec.get("template", {}).get("spec", {}))
        case "services" if isinstance(spec, dict):
            _default_service(spec)
        case "namespaces":
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            name = obj["metadata"].get("name", "")
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
        case "secrets":
            obj.setdefault("type", "Opaque")
            _encode_string_data(obj)
        case "customresourcedefinitions":
            default_definition(obj)
        case "priorityclasses":
            obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
        case "rolebindings" | "clusterrolebindings":
            _default_binding(obj)
        case "networkpolicies" if isinstance(spec, dict):
            egress = ["Egress"] if spec.get("egress") else []
            spec.setdefault("policyTypes", ["Ingress", *egress])
            spec.setdefault("podSelector", {})
            for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
                for port in rule.get("ports", []):
                    port.setdefault("protocol", "TCP")
        case "persistentvolumeclaims" if isinstance(spec, dict):
            spec.setdefault("volumeMode", "Filesystem")


def _default_deployment(spec: dict[str, Any]) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    default_pod_spec(spec.get("template", {}).get("spec", {}))


def _default_service(spec: dict[str, Any]) -> None:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] == "ClusterIP":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec.get("clusterIP") == "None":
        spec["clusterIPs"] = ["None"]
    for port in spec.get("ports", []):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _default_binding(obj: Object) -> None:
    group = "rbac.authorization.k8s.io"
    if isinstance(obj.get("roleRef"), dict):
        obj["roleRef"].setdefault("apiGroup", group)
    for subject in obj.get("subjects", []):
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", group)


def _encode_string_data(obj: Object) -> None:
    for key, value in obj.pop("stringData", {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def validate_builtin(kind: Kind, obj: Object, old: Object | None) -> list[FieldError]:
    """Check a built-in object beyond its schema; `old` is the stored one on an update."""
    match kind.plural:
        case "pods":
            errors = validate_pod_spec(obj.get("spec", {}), "spec")
            return errors + (validate_pod_update(old, obj) if old else [])
        case "deployments" | "replicasets":
            return _validate_workload(obj, old)
        case "secrets" | "configmaps":
            return _validate_immutable(obj, old)
        case "events":
            return _validate_event(obj)
        case "rolebindings" | "clusterrolebindings" if old and old["roleRef"] != obj["roleRef"]:
            text = f"Invalid value: {json.dumps(obj['roleRef'])}: cannot change roleRef"
            return [FieldError("roleRef", text)]
    return []


def _validate_workload(obj: Object, old: Object | None) -> list[FieldError]:
    spec = obj.get("spec", {})
    template = spec.get("template", {})
    errors = validate_pod_spec(template.get("spec", {}), "spec.template.spec")
    wanted = spec.get("selector", {}).get("matchLabels", {})
    labels = template.get("metadata", {}).get("labels", {})
    if not wanted and not spec.get("selector", {}).get("matchExpressions"):
        text = "Required value"
        errors.append(FieldError("spec.selector", text, "FieldValueRequired"))
    elif any(labels.get(k) != v for k, v in wanted.items()):
        text = f"Invalid value: {json.dumps(labels)}: `selector` does not match template `labels`"
        errors.append(FieldError("spec.template.metadata.labels", text))
    if old and old["spec"].get("selector") != spec.get("selector"):
        text = f"Invalid value: {json.dumps(spec.get('selector'))}: field is immutable"
        errors.append(FieldError("spec.selector", text))
    return errors


def _validate_event(obj: Object) -> list[FieldError]:
    home = obj["metadata"]["namespace"]
    target = obj.get("involvedObject", {}).get("namespace") or "default"
    if target == home:
        return []
    text = f"Invalid value: {json.dumps(target)}: does not match event.namespace"
    return [FieldError("involvedObject.namespace", text)]


def _validate_immutable(obj: Object, old: Object | None) -> list[FieldError]:
    if old is None or not old.get("immutable"):
        return []
    text = "Forbidden: field is immutable when `immutable` is set"
    return [
        FieldError(field, text, "FieldValueForbidden")
        for field in ("immutable", "data", "binaryData", "type")
        if old.get(field) != obj.get(field)
    ]

"""Pod specs: defaults, the ServiceAccount's token volume, initial status, validation."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Object
from kube_emulator.quantity import canonical_amounts
from kube_schema.field_errors import FieldError

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a directory)
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def default_pod_spec(spec: dict[str, Any]) -> None:
    """Fill in, in place, what every pod spec and pod template has."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        _default_container(container)
    for volume in spec.get("volumes", []):
        _default_volume(volume)


def _default_container(container: dict[str, Any]) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    tag = container.get("image", "").rpartition("/")[2].partition("@")[0].partition(":")[2]
    pinned = "@" in container.get("image", "") or tag not in ("", "latest")
    container.setdefault("imagePullPolicy", "IfNotPresent" if pinned else "Always")
    canonical_amounts(container.setdefault("resources", {}))
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for probe in (container[p] for p in _PROBES if p in container):
        for field, value in (
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ):
            probe.setdefault(field, value)
        if "httpGet" in probe:
            probe["httpGet"].setdefault("scheme", "HTTP")
            probe["httpGet"].setdefault("path", "/")
    for env in container.get("env", []):
        if "fieldRef" in env.get("valueFrom", {}):
            env["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")


def _default_volume(volume: dict[str, Any]) -> None:
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if source in volume:
            volume[source].setdefault("defaultMode", 0o644)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    for source in volume.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)


def default_requests(spec: dict[str, Any]) -> None:
    """A pod that only limits a resource requests as much of it; in place."""
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        resources = container.get("resources", {})
        if limits := resources.get("limits"):
            resources["requests"] = {**limits, **resources.get("requests", {})}


def default_tolerations(spec: dict[str, Any]) -> None:
    """A pod stays five minutes on a node that is not ready or not reachable; in place."""
    tolerations = spec.setdefault("tolerations", [])
    for condition in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{condition}"
        if not any(t.get("key") in (key, None) for t in tolerations):
            tolerations.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
            )


def mount_account_token(spec: dict[str, Any], account: Object) -> None:
    """Mount the account's token into every container, in place, as admission does on creation."""
    automount = spec.get(
        "automountServiceAccountToken", account.get("automountServiceAccountToken", True)
    )
    containers = [*spec.get("initContainers", []), *spec.get("containers", [])]
    bare = [
        c
        for c in containers
        if all(m.get("mountPath") != TOKEN_PATH for m in c.get("volumeMounts", []))
    ]
    if not automount or not bare:
        return
    name = "kube-api-access-" + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
    spec.setdefault("volumes", []).append(_token_volume(name))
    for container in bare:
        mount = {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}
        container.setdefault("volumeMounts", []).append(mount)


def _token_volume(name: str) -> dict[str, Any]:
    namespace = {"path": "namespace", "fieldRef": _NAMESPACE_REF}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {
                    "configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }
                },
                {"downwardAPI": {"items": [namespace]}},
            ],
            "defaultMode": 0o644,
        },
    }


_NAMESPACE_REF = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}


def pod_status(obj: Object) -> Object:
    return {"phase": "Pending", "qosClass": _qos_class(obj.get("spec", {}))}


def _qos_class(spec: dict[str, Any]) -> str:
    resources = [c.get("resources", {}) for c in spec.get("containers", [])]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    for r in resources:
        limits = r.get("limits", {})
        if not {"cpu", "memory"} <= limits.keys():
            return "Burstable"
        if any(r.get("requests", {}).get(k) != limits[k] for k in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def validate_pod_spec(spec: dict[str, Any], path: str) -> list[FieldError]:
    """Check what the real server refuses before anything is scheduled."""
    containers = spec.get("containers", [])
    if not containers:
        return [FieldError(f"{path}.containers", "Required value", "FieldValueRequired")]
    errors: list[FieldError] = []
    names: set[str] = set()
    volumes = {volume.get("name") for volume in spec.get("volumes", [])}
    for field in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(field, [])):
            where = f"{path}.{field}[{i}]"
            errors += _validate_container(container, where, names, volumes)
    return errors


def _validate_container(
    container: dict[str, Any], path: str, names: set[str], volumes: set[str | None]
) -> list[FieldError]:
    errors = [
        FieldError(f"{path}.{field}", "Required value", "FieldValueRequired")
        for field in ("name", "image")
        if not container.get(field)
    ]
    name = container.get("name", "")
    if name in names:
        text = f"Duplicate value: {json.dumps(name)}"
        errors.append(FieldError(f"{path}.name", text, "FieldValueDuplicate"))
    names.add(name)
    for i, mount in enumerate(container.get("volumeMounts", [])):
        if mount.get("name") not in volumes:
            text = f"Not found: {json.dumps(mount.get('name'))}"
            errors.append(FieldError(f"{path}.volumeMounts[{i}].name", text))
    return errors


def validate_pod_update(old: Object, new: Object) -> list[FieldError]:
    """A pod's spec is frozen but for images, deadline, tolerations and scheduling gates."""
    if _frozen(old["spec"]) == _frozen(new["spec"]):
        return []
    text = (
        "Forbidden: pod updates may not change fields other than "
        "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
        "`spec.tolerations` (only additions to existing tolerations),"
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously "
        "negative)"
    )
    return [FieldError("spec", text, "FieldValueForbidden")]


def _frozen(spec: dict[str, Any]) -> dict[str, Any]:
    kept = copy.deepcopy(spec)
    for field in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        kept.pop(field, None)
    for container in [*kept.get("initContainers", []), *kept.get("containers", [])]:
        container.pop("image", None)
    return kept

"""What other objects decide about a new one: its namespace, a pod's account and priority."""

from __future__ import annotations

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.kinds.podspec import default_tolerations, mount_account_token
from kube_emulator.apiserver.objects.storage import Store


def check_namespace(store: Store, kind: Kind, namespace: str, name: str) -> None:
    """Nothing is created in a namespace that is not there (404) or is being deleted (403)."""
    if not kind.namespaced:
        return
    home = store.get("/namespaces", "", namespace)
    if home is None:
        message = f'namespaces "{namespace}" not found'
        details = {"name": namespace, "kind": "namespaces"}
        raise errors.StatusError(404, "NotFound", message, details=details)
    if "deletionTimestamp" in home["metadata"]:
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        why = (
            f"unable to create new content in namespace {namespace} because it is being terminated"
        )
        raise errors.forbidden(kind, name, why, causes=[cause])


def admit_pod(store: Store, kind: Kind, pod: Object) -> None:
    """Give a new pod its account's token and its priority, in place. Raises StatusError 403."""
    meta, spec = pod["metadata"], pod.setdefault("spec", {})
    home, name = meta["namespace"], spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    account = store.get("/serviceaccounts", home, name)
    if account is None:
        why = f"error looking up service account {home}/{name}: serviceaccount"
        raise errors.forbidden(kind, meta["name"], f'{why} "{name}" not found')
    mount_account_token(spec, account)
    spec["priority"] = _priority(store, kind, pod)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    default_tolerations(spec)


def _priority(store: Store, kind: Kind, pod: Object) -> int:
    name = pod["spec"].get("priorityClassName")
    if not name:
        return 0
    found = store.get("scheduling.k8s.io/priorityclasses", "", name)
    if found is None:
        why = f"no PriorityClass with name {name} was found"
        raise errors.forbidden(kind, pod["metadata"]["name"], why)
    return int(found["value"])

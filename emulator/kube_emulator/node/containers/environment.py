"""A container's environment and arguments, resolved as the kubelet resolves them."""

import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kube_emulator.client import CONFIG_MAPS, SECRETS, Object, Resource
from kube_emulator.node.containers.resources import container_resource

Fetch = Callable[[Resource, str], Awaitable[Object | None]]
"""Get an object of the pod's namespace by name; None when there is none."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(?P<key>[^']+)'\]")


class ConfigError(Exception):
    """The container cannot be made (CreateContainerConfigError); worded like the kubelet."""


@dataclass(frozen=True)
class PodFacts:
    """What fieldRef may ask for."""

    pod: Object
    node_name: str
    host_ip: str
    pod_ip: str


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; unknown names stay as they are and `$$` gives `$`."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def field_value(path: str, facts: PodFacts) -> str:
    """The value of a fieldRef's fieldPath.

    Raises:
        ConfigError: the kubelet offers no such field.
    """
    meta = facts.pod["metadata"]
    if match := _SUBSCRIPT.fullmatch(path):
        return str(meta.get(match[1], {}).get(match["key"], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = meta.get(path.removeprefix("metadata."), {})
        return "".join(f'{key}="{pairs[key]}"\n' for key in sorted(pairs))
    fields = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": facts.pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in fields:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(fields[path])


async def resolve(
    container: Object, base: Mapping[str, str], facts: PodFacts, fetch: Fetch
) -> dict[str, str]:
    """The container's variables: `base`, then envFrom, then env, later ones winning.

    Raises:
        ConfigError: a ConfigMap, Secret or key that is not optional is missing.
    """
    namespace = facts.pod["metadata"]["namespace"]
    variables = dict(base)
    for source in container.get("envFrom", []):
        prefix = source.get("prefix", "")
        for name, value in (await _whole(source, namespace, fetch)).items():
            variables[prefix + name] = value
    for entry in container.get("env", []):
        value_from = entry.get("valueFrom")
        if value_from is None:
            variables[entry["name"]] = expand(entry.get("value", ""), variables)
            continue
        found = await _referenced(value_from, container, facts, fetch)
        if found is not None:
            variables[entry["name"]] = found
    return variables


async def _whole(source: Object, namespace: str, fetch: Fetch) -> dict[str, str]:
    if "secretRef" in source:
        return await keyed(SECRETS, source["secretRef"], namespace, fetch)
    return await keyed(CONFIG_MAPS, source["configMapRef"], namespace, fetch)


async def keyed(
    resource: Resource, reference: Object, namespace: str, fetch: Fetch
) -> dict[str, str]:
    """All text entries of the named Secret or ConfigMap; empty when it is optional and missing."""
    found = await fetch(resource, reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{resource.plural.removesuffix("s")} "{reference["name"]}" not found')
    return {key: data.decode(errors="surrogateescape") for key, data in contents(found).items()}


def contents(found: Object) -> dict[str, bytes]:
    """A Secret's or ConfigMap's entries as bytes."""
    if found["kind"] == "Secret":
        return {key: b64decode(value) for key, value in (found.get("data") or {}).items()}
    text = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    return text | {k: b64decode(v) for k, v in (found.get("binaryData") or {}).items()}


async def _referenced(
    value_from: Object, container: Object, facts: PodFacts, fetch: Fetch
) -> str | None:
    if reference := value_from.get("fieldRef"):
        return field_value(reference["fieldPath"], facts)
    if reference := value_from.get("resourceFieldRef"):
        return resource_value(reference, container)
    resource, kind, reference = (
        (SECRETS, "Secret", value_from["secretKeyRef"])
        if "secretKeyRef" in value_from
        else (CONFIG_MAPS, "ConfigMap", value_from["configMapKeyRef"])
    )
    namespace = facts.pod["metadata"]["namespace"]
    values = await keyed(resource, reference, namespace, fetch)
    if reference["key"] not in values:
        if reference.get("optional"):
            return None
        raise ConfigError(
            f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}"
        )
    return values[reference["key"]]


def resource_value(reference: dict[str, Any], container: Object) -> str:
    """A resourceFieldRef: `limits.<name>` or `requests.<name>`, divided by `divisor`, rounded up.

    Raises:
        ConfigError: not a limit or request.
    """
    side, _, name = reference["resource"].partition(".")
    if side not in ("limits", "requests") or not name:
        raise ConfigError(f"unsupported container resource: {reference['resource']}")
    return str(container_resource(container, side, name, reference.get("divisor") or "1"))

"""The /etc/hosts of pods: themselves, and the headless services that show a pod (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from kube_emulator.client import Object

HEAD = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True)
class Place:
    """Where a pod can be reached; `ready` pods are shown by services."""

    pod: Object
    address: str
    ready: bool


def hosts_file(own: Place, hostname: str, services: Iterable[Object], places: list[Place]) -> str:
    """The file for one pod: cluster DNS answers a headless service with its pods' addresses, here
    the first ready one in the order of names."""
    namespace = own.pod["metadata"]["namespace"]
    lines = [HEAD, f"{own.address}\t{hostname}\n"]
    for service in services:
        if service["spec"].get("clusterIP") != "None":
            continue
        address = _address(service, places)
        if address is not None:
            lines.append(f"{address}\t{' '.join(_names(service['metadata'], namespace))}\n")
    return "".join(lines)


def _names(meta: Object, namespace: str) -> list[str]:
    full = f"{meta['name']}.{meta['namespace']}"
    names = [full, f"{full}.svc", f"{full}.svc.cluster.local"]
    return [meta["name"], *names] if meta["namespace"] == namespace else names


def _address(service: Object, places: list[Place]) -> str | None:
    selector = service["spec"].get("selector") or {}
    shows_all = service["spec"].get("publishNotReadyAddresses", False)
    for place in sorted(places, key=lambda place: str(place.pod["metadata"]["name"])):
        meta = place.pod["metadata"]
        labels = meta.get("labels", {})
        selected = selector and all(labels.get(key) == value for key, value in selector.items())
        same_namespace = meta["namespace"] == service["metadata"]["namespace"]
        if selected and same_namespace and (place.ready or shows_all):
            return place.address
    return None

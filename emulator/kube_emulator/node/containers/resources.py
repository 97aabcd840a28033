"""Resources: what containers ask for and what the machine has."""

import os
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

from kube_emulator.client import Object
from kube_emulator.quantity import parse


def container_resource(container: Object, side: str, name: str, divisor: str) -> int:
    """`limits` or `requests` of one resource in units of `divisor`, rounded up; the machine's
    capacity where the container sets none."""
    resources = container.get("resources", {})
    value = resources.get(side, {}).get(name) or resources.get("limits", {}).get(name)
    amount = parse(value) if value else machine_capacity().get(name, Decimal(0))
    return int((amount / parse(divisor)).to_integral_value(ROUND_CEILING))


def memory_limit(container: Object) -> int | None:
    """The container's memory limit in bytes, or None."""
    value = container.get("resources", {}).get("limits", {}).get("memory")
    return int(parse(value)) if value else None


def thread_limit(container: Object) -> dict[str, str]:
    """The variable by which libraries keep to the container's CPU limit, if it has one. A kubelet
    sets a quota, which they read; here there is none."""
    value = container.get("resources", {}).get("limits", {}).get("cpu")
    return {"OMP_NUM_THREADS": str(max(1, int(parse(value))))} if value else {}


def pod_requests(spec: Object) -> dict[str, Decimal]:
    """What the pod asks of a node: the larger of all main containers and sidecars together and
    each init container on top of the sidecars before it."""
    sidecars: dict[str, Decimal] = {}
    peak: dict[str, Decimal] = {}
    for container in spec.get("initContainers", []):
        asked = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum(sidecars, asked)
        else:
            peak = _largest(peak, _sum(sidecars, asked))
    steady = sidecars
    for container in spec["containers"]:
        steady = _sum(steady, _requests(container))
    return _largest(steady, peak)


def machine_capacity() -> dict[str, Decimal]:
    """This machine's CPUs and bytes of memory, and the kubelet's default number of pods."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    disk = os.statvfs(Path.home())
    return {
        "cpu": Decimal(os.cpu_count() or 1),
        "memory": Decimal(pages),
        "pods": Decimal(110),
        "ephemeral-storage": Decimal(disk.f_blocks * disk.f_frsize),
    }


def _requests(container: Object) -> dict[str, Decimal]:
    resources = container.get("resources", {})
    merged = resources.get("limits", {}) | resources.get("requests", {})
    return {name: parse(value) for name, value in merged.items()}


def _sum(left: dict[str, Decimal], right: dict[str, Decimal]) -> dict[str, Decimal]:
    zero = Decimal(0)
    return {name: left.get(name, zero) + right.get(name, zero) for name in left | right}


def _largest(left: dict[str, Decimal], right: dict[str, Decimal]) -> dict[str, Decimal]:
    zero = Decimal(0)
    return {name: max(left.get(name, zero), right.get(name, zero)) for name in left | right}

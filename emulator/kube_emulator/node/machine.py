"""The Node object: this machine as Kubernetes sees it."""

import asyncio
import logging
import platform
from datetime import UTC, datetime

from kube_emulator.client import NODES, ApiError, Client, Object, Resource
from kube_emulator.node.containers.resources import machine_capacity
from kube_emulator.timestamps import timestamp

log = logging.getLogger(__name__)

LEASES = Resource("apis/coordination.k8s.io/v1", "leases")
LEASE_NAMESPACE = "kube-node-lease"
NOT_READY = "node.kubernetes.io/not-ready"
HEARTBEAT_SECONDS = 10.0
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def node_object(name: str, host_ip: str, port: int, extra_capacity: dict[str, str]) -> Object:
    """The Node with its status; `extra_capacity` overrides or adds resources."""
    capacity = {key: str(int(value)) for key, value in machine_capacity().items()} | extra_capacity
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "node.kubernetes.io/instance-type": "emulated",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [_condition("Ready", "True", "KubeletReady")]
            + [
                _condition(kind, "False", "KubeletHasSufficientResources")
                for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
            ],
            # no Hostname: an API server would prefer it, and cannot resolve it
            "addresses": [{"type": "InternalIP", "address": host_ip}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {
                "architecture": architecture,
                "bootID": "",
                "containerRuntimeVersion": "emulated://processes",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.0-emulated",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "the host, images are not run",
                "systemUUID": "",
            },
        },
    }


async def register(client: Client, node: Object) -> None:
    """Create the Node, or bring the status of an existing one up to date.

    Raises:
        ApiError: the API server refuses it.
    """
    path = NODES.path(None, node["metadata"]["name"])
    try:
        await client.create(NODES.path(), node)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        await client.patch(path, {"metadata": {"labels": node["metadata"]["labels"]}})
    await client.patch(f"{path}/status", {"status": node["status"]})
    # admission taints every new node; taking that away is a node controller's part
    taints = (await client.get(path))["spec"].get("taints", [])
    kept = [taint for taint in taints if taint["key"] != NOT_READY]
    if kept != taints:
        await client.patch(path, {"spec": {"taints": kept or None}})


async def heartbeat(client: Client, name: str) -> None:
    """Renew the node's Lease, by which a real node controller knows that it lives."""
    while True:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": moment}
        try:
            await _put_lease(client, name, spec)
        except ApiError as error:
            log.info("heartbeat: %s", error)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _put_lease(client: Client, name: str, spec: Object) -> None:
    try:
        await client.patch(LEASES.path(LEASE_NAMESPACE, name), {"spec": spec})
    except ApiError as error:
        if error.status != 404:
            raise
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
            "spec": spec,
        }
        await client.create(LEASES.path(LEASE_NAMESPACE), lease)


def _condition(kind: str, value: str, reason: str) -> Object:
    stamp = timestamp()
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": "",
        "lastHeartbeatTime": stamp,
        "lastTransitionTime": stamp,
    }

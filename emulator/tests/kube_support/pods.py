"""Create pods on a cluster and wait for what becomes of them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kube_emulator.client import EVENTS, PODS, ApiError, Client, Object, Resource

SECONDS = 180.0
NAMESPACE = "default"


class Pods:
    """Pods of one test; names are made unique."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.suffix = uuid.uuid4().hex[:6]

    def name(self, short: str) -> str:
        return f"{short}-{self.suffix}"

    async def create(self, short: str, *containers: Object, **spec: Any) -> str:
        """Create a pod of `containers` (image alpine unless said) and return its name."""
        named = [{"name": f"c{n}", "image": "alpine"} | one for n, one in enumerate(containers)]
        meta = spec.pop("metadata", {}) | {"name": self.name(short)}
        policy = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
        await self.put(PODS, pod | {"spec": policy | {"containers": named} | spec})
        return str(meta["name"])

    async def put(self, resource: Resource, item: Object) -> None:
        await self.client.create(resource.path(NAMESPACE), item)

    async def get(self, name: str, resource: Resource = PODS) -> Object:
        return await self.client.get(resource.path(NAMESPACE, name))

    async def find(self, name: str, resource: Resource = PODS) -> Object | None:
        """The object, a pod unless said, or None where there is none."""
        try:
            return await self.get(name, resource)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def until(self, name: str, holds: Callable[[Object], bool]) -> Object:
        """The pod once `holds` of it; the last one seen is in the failure's message."""
        pod: Object = {}
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    pod = await self.find(name) or pod
                    if pod and holds(pod):
                        return pod
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{name} stays {pod.get('status')}") from None

    async def until_phase(self, name: str, *phases: str) -> Object:
        return await self.until(name, lambda pod: pod["status"].get("phase") in phases)

    async def statuses(self, prefix: str) -> dict[str, Object]:
        """The status of every pod whose name begins so, for a failure's message."""
        found = await self.client.get(PODS.path(NAMESPACE))
        return {
            one["metadata"]["name"]: one.get("status", {})
            for one in found["items"]
            if one["metadata"]["name"].startswith(prefix)
        }

    async def until_gone(self, name: str, resource: Resource = PODS) -> None:
        async def is_gone() -> bool:
            return await self.find(name, resource) is None

        await eventually(is_gone)

    async def delete(self, name: str, grace_seconds: int | None = None) -> None:
        await self.client.delete(PODS.path(NAMESPACE, name), grace_seconds=grace_seconds)

    async def logs(self, name: str, query: str = "") -> str:
        return await self.client.text(f"{PODS.path(NAMESPACE, name, 'log')}?{query}")

    async def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of every event about the pod."""
        found = await self.client.get(EVENTS.path(NAMESPACE))
        return [
            (one["reason"], one["message"])
            for one in found["items"]
            if one["involvedObject"]["name"] == name
        ]

    async def until_event(self, name: str, reason: str) -> str:
        async with asyncio.timeout(SECONDS):
            while True:
                for found, message in await self.events(name):
                    if found == reason:
                        return message
                await asyncio.sleep(0.05)


@asynccontextmanager
async def pods_of(kubeconfig: Path) -> AsyncIterator[Pods]:
    client = await Client.connect(kubeconfig)
    try:
        yield Pods(client)
    finally:
        await client.close()


async def eventually(holds: Callable[[], Awaitable[bool] | bool]) -> None:
    """Return once `holds()` is true."""
    async with asyncio.timeout(SECONDS):
        while True:
            answer = holds()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.05)


def state(pod: Object, container: str = "c0") -> Object:
    """One container's state: {"waiting": ...}, {"running": ...} or {"terminated": ...}."""
    return dict(status_of(pod, container).get("state", {}))


def status_of(pod: Object, container: str = "c0") -> Object:
    status = pod.get("status", {})
    every = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    return next((one for one in every if one["name"] == container), {})


def condition(pod: Object, kind: str) -> Object:
    every = pod.get("status", {}).get("conditions", [])
    return next((one for one in every if one["type"] == kind), {})


def sh(script: str, **more: Any) -> Object:
    """A container that runs a shell script."""
    return {"command": ["/bin/sh", "-c", script], **more}

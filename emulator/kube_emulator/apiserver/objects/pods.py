"""What only pods have: binding to a node, eviction, and logs read through the node."""

from __future__ import annotations

import copy
from typing import Any

import aiohttp
from aiohttp import web

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.objects.deletion import DeleteOptions, delete
from kube_emulator.apiserver.objects.resources import Resources
from kube_emulator.apiserver.wire.request import WriteOptions
from kube_emulator.timestamps import timestamp

_EVICTED = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
_LOG_OPTIONS = (
    "follow",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "previous",
    "timestamps",
    "limitBytes",
)


def bind(
    resources: Resources, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions
) -> Object:
    """Put a pod on a node, once, as a scheduler does. Raises StatusError 409 the second time."""
    pod = resources.get(kind, namespace, name)
    target = (body.get("target") or {}).get("name") if isinstance(body, dict) else None
    if not target:
        raise errors.bad_request("target.name: Required value")
    if node := pod["spec"].get("nodeName"):
        why = f"pod {name} is already assigned to node {node!r}".replace("'", '"')
        raise errors.conflict(kind, name, why)
    bound = _with_condition(pod, "PodScheduled")
    bound["spec"]["nodeName"] = target
    if not options.dry_run:
        resources.store.put(kind.storage_key, bound)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def evict(
    resources: Resources, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions
) -> Object:
    """Delete a pod by the eviction API, which tells it so; disruption budgets are stored but not
    consulted."""
    pod = resources.get(kind, namespace, name)
    if "deletionTimestamp" not in pod["metadata"] and not options.dry_run:
        told = _with_condition(pod, "DisruptionTarget", **_EVICTED)
        resources.store.put(kind.storage_key, told)
    given = body.get("deleteOptions") if isinstance(body, dict) else None
    delete(resources, kind, namespace, name, DeleteOptions.parse(given, {}), options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _with_condition(pod: Object, kind: str, **words: str) -> Object:
    """A copy of the pod in which a condition is true."""
    changed = copy.deepcopy(pod)
    condition = {"type": kind, "status": "True", "lastTransitionTime": timestamp(), **words}
    conditions = changed.setdefault("status", {}).get("conditions", [])
    changed["status"]["conditions"] = [*(c for c in conditions if c["type"] != kind), condition]
    return changed


def log_address(resources: Resources, pod: Object, query: dict[str, str]) -> str:
    """The URL of a container's log at its node. Raises StatusError 400 where there is none."""
    meta, spec = pod["metadata"], pod["spec"]
    names = [c["name"] for c in [*spec.get("initContainers", []), *spec["containers"]]]
    container = query.get("container") or (names[0] if len(names) == 1 else "")
    if not container:
        raise errors.bad_request(
            f"a container name must be specified for pod {meta['name']}, choose one of: "
            f"[{' '.join(c['name'] for c in spec['containers'])}]"
        )
    if container not in names:
        raise errors.bad_request(f"container {container} is not valid for pod {meta['name']}")
    if not spec.get("nodeName"):
        raise errors.bad_request(f"pod {meta['name']} does not have a host assigned")
    host = _node_address(resources, spec["nodeName"])
    return f"https://{host}/containerLogs/{meta['namespace']}/{meta['name']}/{container}"


def _node_address(resources: Resources, node_name: str) -> str:
    nodes = resources.registry.find("", "v1", "nodes")
    assert nodes is not None
    status = resources.get(nodes, "", node_name).get("status", {})
    addresses = status.get("addresses", [])
    address = next((a["address"] for a in addresses if a["type"] == "InternalIP"), None)
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port")
    if address is None or port is None:
        message = f"node {node_name} reports no InternalIP or no kubelet port to read logs from"
        raise errors.StatusError(500, "InternalError", message)
    return f"{address}:{port}"


_REASONS = {400: "BadRequest", 404: "NotFound"}


async def stream_log(request: web.Request, url: str) -> web.StreamResponse:
    """Pass a log through from the node, line by line as it grows."""
    query = {k: request.query[k] for k in _LOG_OPTIONS if k in request.query}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    # A node's certificate is its own; as on a cluster without a kubelet CA it is not verified.
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            answer = await session.get(url, params=query, ssl=False)
        except aiohttp.ClientConnectionError as error:
            message = f"Get {url!r}: {error}".replace("'", '"')
            raise errors.StatusError(500, "InternalError", message) from error
        async with answer:
            if answer.status != 200:
                text = (await answer.text()).strip()
                reason = _REASONS.get(answer.status, "InternalError")
                raise errors.StatusError(answer.status, reason, text)
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

"""The kubelet's HTTPS port, on loopback: container logs, for the API server to pass on.

It asks nobody who they are: any process of this machine may read pods' logs.
"""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path

import trustme
from aiohttp import web

from kube_emulator.client import Object
from kube_emulator.node.containers import logs
from kube_emulator.node.containers.container import ContainerRunner
from kube_emulator.node.containers.logs import LogOptions
from kube_emulator.node.containers.record import Waiting
from kube_emulator.node.kubelet import Kubelet

ENDED = asyncio.Event()
ENDED.set()


async def serve(kubelet: Kubelet, host: str) -> tuple[web.AppRunner, int]:
    """Listen on a free port of `host`; returns the runner to clean up and the port."""
    app = web.Application()
    server = LogServer(kubelet)
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", server.logs)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=_certificate(host))
    await site.start()
    port: int = runner.addresses[0][1]
    return runner, port


class LogServer:
    """Answers GET /containerLogs/<namespace>/<pod>/<container> as the kubelet does."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet

    async def logs(self, request: web.Request) -> web.StreamResponse:
        where = request.match_info
        pod = self._pod(where["namespace"], where["pod"], where["container"])
        try:
            options = _options(request.query)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"bad log query: {error}") from error
        previous = request.query.get("previous") in ("true", "1")
        runner = self._runner(pod["metadata"]["uid"], where["container"])
        path = _chosen(self._directory(pod) / where["container"], previous)
        if path is None:
            container = f'container "{where["container"]}" in pod "{where["pod"]}"'
            raise web.HTTPBadRequest(text=f"{container} {_absent(previous, runner)}")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        ended = runner.ended if runner and not previous else ENDED
        async for chunk in logs.read(path, options, ended):
            await response.write(chunk)
        await response.write_eof()
        return response

    def _pod(self, namespace: str, name: str, container: str) -> Object:
        """The pod, which has such a container: the name becomes part of a path."""
        pod = self._kubelet.find_pod(namespace, name)
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{name}" is not on this node')
        every = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        if container not in [one["name"] for one in every]:
            raise web.HTTPNotFound(text=f'pod "{name}" has no container "{container}"')
        return pod

    def _directory(self, pod: Object) -> Path:
        meta = pod["metadata"]
        name = f"{meta['namespace']}_{meta['name']}_{meta['uid']}"
        return self._kubelet.node.directory / "logs" / name

    def _runner(self, uid: str, container: str) -> ContainerRunner | None:
        worker = self._kubelet.workers.get(uid)
        runners = worker.runners if worker else []
        return next((one for one in runners if one.record.name == container), None)


def _absent(previous: bool, runner: ContainerRunner | None) -> str:
    if previous:
        return "has no previous run"
    state = runner.record.state if runner else None
    reason = f": {state.reason}" if isinstance(state, Waiting) else ""
    return f"is waiting to start{reason}"


def _chosen(directory: Path, previous: bool) -> Path | None:
    """The log of the present or last run, or of the one before."""
    runs = sorted(directory.glob("*.log"), key=lambda path: int(path.stem))
    chosen = runs[:-1] if previous else runs
    return chosen[-1] if chosen else None


def _options(query: Mapping[str, str]) -> LogOptions:
    """Raises ValueError for a number that is none."""
    since = logs.since_seconds(int(query["sinceSeconds"])) if "sinceSeconds" in query else None
    return LogOptions(
        follow=query.get("follow") in ("true", "1"),
        timestamps=query.get("timestamps") in ("true", "1"),
        tail_lines=int(query["tailLines"]) if "tailLines" in query else None,
        since=since,
        limit_bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
    )


def _certificate(host: str) -> ssl.SSLContext:
    """A certificate of its own: an API server does not verify its kubelets unless told to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(host).configure_cert(context)
    return context

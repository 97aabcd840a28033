"""Startup, readiness and liveness probes: HTTP GET, TCP and exec."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from kube_emulator.client import Object
from kube_emulator.node.containers.process import ContainerProcess

UNCHECKED_TLS = False


@dataclass(frozen=True)
class Probe:
    """One probe of a container; numbers as in core/v1 Probe, with its defaults."""

    spec: Object
    container: Object
    host: str

    @property
    def period(self) -> float:
        return float(self.spec.get("periodSeconds", 10))

    @property
    def delay(self) -> float:
        return float(self.spec.get("initialDelaySeconds", 0))

    @property
    def failures(self) -> int:
        return int(self.spec.get("failureThreshold", 3))

    @property
    def successes(self) -> int:
        return int(self.spec.get("successThreshold", 1))

    async def run(self, process: ContainerProcess) -> str | None:
        """Try once: None when it succeeds, else what went wrong in the kubelet's words."""
        seconds = float(self.spec.get("timeoutSeconds", 1))
        try:
            async with asyncio.timeout(seconds):
                if "exec" in self.spec:
                    return await process.execute(self.spec["exec"]["command"])
                if "tcpSocket" in self.spec:
                    return await self._connect(self.spec["tcpSocket"])
                return await self._get(self.spec["httpGet"])
        except TimeoutError:
            return f"probe timed out after {seconds:g}s"

    async def _get(self, action: Object) -> str | None:
        host = action.get("host") or self.host
        scheme = action.get("scheme", "HTTP").lower()
        url = f"{scheme}://{host}:{self._port(action['port'])}{action.get('path', '/')}"
        headers = {one["name"]: one["value"] for one in action.get("httpHeaders", [])}
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.get(url, ssl=UNCHECKED_TLS, allow_redirects=False) as response,
            ):
                if 200 <= response.status < 400:
                    return None
                return f"HTTP probe failed with statuscode: {response.status}"
        except (aiohttp.ClientError, OSError) as error:
            return f'Get "{url}": {error}'

    async def _connect(self, action: Object) -> str | None:
        try:
            _, writer = await asyncio.open_connection(
                action.get("host") or self.host, self._port(action["port"])
            )
        except OSError as error:
            return str(error)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return None

    def _port(self, port: int | str) -> int:
        for named in self.container.get("ports", []):
            if named.get("name") == port:
                return int(named["containerPort"])
        return int(port)


async def until_started(
    probe: Probe, process: ContainerProcess, unhealthy: Callable[[str], Awaitable[None]]
) -> bool:
    """True once the startup probe succeeds; False when its failures have reached the threshold."""
    return await _until(probe, process, unhealthy, wanted=True)


async def until_dead(
    probe: Probe, process: ContainerProcess, unhealthy: Callable[[str], Awaitable[None]]
) -> None:
    """Return when the liveness probe has failed often enough in a row."""
    await _until(probe, process, unhealthy, wanted=False)


async def follow_readiness(
    probe: Probe,
    process: ContainerProcess,
    unhealthy: Callable[[str], Awaitable[None]],
    ready: Callable[[bool], None],
) -> None:
    """Report each change of readiness, until cancelled."""
    while True:
        await _until(probe, process, unhealthy, wanted=True, patience=None)
        ready(True)
        await _until(probe, process, unhealthy, wanted=False)
        ready(False)


async def _until(
    probe: Probe,
    process: ContainerProcess,
    unhealthy: Callable[[str], Awaitable[None]],
    *,
    wanted: bool,
    patience: int | None = 0,
) -> bool:
    """Probe until it is `wanted` often enough in a row; with `patience`, until it fails too often.

    `patience` 0 is the probe's own failureThreshold, None is endless.
    """
    limit = probe.failures if patience == 0 else patience
    good = bad = 0
    await asyncio.sleep(probe.delay)
    while True:
        trouble = await probe.run(process)
        if trouble is None:
            good, bad = good + 1, 0
        else:
            good, bad = 0, bad + 1
            await unhealthy(trouble)
        if wanted and good >= probe.successes:
            return True
        if limit is not None and bad >= limit:
            return False
        await asyncio.sleep(probe.period)

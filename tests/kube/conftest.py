"""The server under test, and clients for it.

The suite runs unchanged on three targets, chosen by the environment:

- `KUBE_CONFORMANCE_KUBECONFIG`: the cluster of that kubeconfig (an administrator's);
- `KUBEBUILDER_ASSETS`: etcd and kube-apiserver are started from that directory, and
  kube-controller-manager where it is there (else our collector);
- neither: the embedded API server and our collector.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from finetune_local import binaries

Json = Any


def _target() -> str:
    if os.environ.get("KUBE_CONFORMANCE_KUBECONFIG"):
        return "kubeconfig"
    return "assets" if os.environ.get("KUBEBUILDER_ASSETS") else "embedded"


def pytest_report_header() -> str:
    names = {
        "kubeconfig": f"the cluster of {os.environ.get('KUBE_CONFORMANCE_KUBECONFIG')}",
        "assets": f"kube-apiserver of {os.environ.get('KUBEBUILDER_ASSETS')}",
        "embedded": "the embedded API server (an emulation)",
    }
    return f"kube conformance target: {names[_target()]}"


@dataclass
class Answer:
    """A response: its status code, parsed body, and headers."""

    status: int
    body: Json
    headers: Any

    @property
    def warnings(self) -> list[str]:
        return [w.partition('"')[2].rpartition('"')[0] for w in self.headers.getall("Warning", [])]


class Api:
    """Raw requests to the API server, as one user."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        bare: aiohttp.ClientSession,
        url: str,
        token: str | None,
    ) -> None:
        self._session = session
        self._bare = bare
        self.url = url
        self._token = token

    def as_token(self, token: str | None) -> Api:
        """The same server for the holder of a token, without a client certificate."""
        return Api(self._bare, self._bare, self.url, token)

    def _headers(self, content: str, accept: str) -> dict[str, str]:
        headers = {"Content-Type": content, "Accept": accept, "User-Agent": "conformance/1"}
        return headers | ({"Authorization": f"Bearer {self._token}"} if self._token else {})

    async def request(
        self,
        method: str,
        path: str,
        body: Json = None,
        content: str = "application/json",
        accept: str = "application/json",
        **params: str,
    ) -> Answer:
        raw = None if body is None else json.dumps(body).encode()
        headers = self._headers(content, accept)
        async with self._session.request(
            method, self.url + path, data=raw, headers=headers, params=params
        ) as response:
            text = await response.text()
            is_json = text.startswith("{")
            return Answer(response.status, json.loads(text) if is_json else text, response.headers)

    async def get(self, path: str, **params: str) -> Answer:
        return await self.request("GET", path, **params)

    async def post(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("POST", path, body, **params)

    async def put(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("PUT", path, body, **params)

    async def delete(self, path: str, body: Json = None, **params: str) -> Answer:
        return await self.request("DELETE", path, body, **params)

    async def merge(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("PATCH", path, body, "application/merge-patch+json", **params)

    async def json_patch(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("PATCH", path, body, "application/json-patch+json", **params)

    async def strategic(self, path: str, body: Json, **params: str) -> Answer:
        media = "application/strategic-merge-patch+json"
        return await self.request("PATCH", path, body, media, **params)

    async def apply(self, path: str, body: Json, manager: str, **params: str) -> Answer:
        media = "application/apply-patch+yaml"
        return await self.request("PATCH", path, body, media, fieldManager=manager, **params)

    @asynccontextmanager
    async def watch(
        self, path: str, accept: str = "application/json", **params: str
    ) -> AsyncIterator[Callable[[], Any]]:
        """Open a watch; the callable awaits its next event, None at its end."""
        headers = self._headers("application/json", accept)
        query = {"watch": "true", "timeoutSeconds": "60", **params}
        async with self._session.get(self.url + path, headers=headers, params=query) as response:
            if response.status != 200:
                yield _fails(await response.json())
                return

            async def following() -> Json:
                line = await asyncio.wait_for(response.content.readline(), 30)
                return json.loads(line) if line else None

            yield following


def _fails(status: Json) -> Callable[[], Any]:
    async def following() -> Json:
        return {"type": "ERROR", "object": status}

    return following


async def eventually(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Await `check()` until it gives something true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := await check():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"gave up waiting for {what}")


@pytest.fixture(scope="session", name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An administrator's kubeconfig of the target."""
    directory = tmp_path_factory.mktemp("server")
    match _target():
        case "kubeconfig":
            yield Path(os.environ["KUBE_CONFORMANCE_KUBECONFIG"])
        case "assets":
            yield from _real_server(Path(os.environ["KUBEBUILDER_ASSETS"]), directory)
        case _:
            yield from _embedded_server(directory)


class Processes:
    """Child processes of the session, stopped in reverse order."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self._directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._running.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not become ready"
        time.sleep(0.1)


def _embedded_server(directory: Path) -> Iterator[Path]:
    processes = Processes(directory)
    config = directory / "admin.kubeconfig"
    try:
        processes.start(
            "apiserver", sys.executable, "-m", "finetune_local.apiserver", "--dir", str(directory)
        )
        _wait(config.exists, "the embedded API server")
        processes.start("collector", *_collector(config))
        yield config
    finally:
        processes.stop()


def _collector(config: Path) -> list[str]:
    return [sys.executable, "-m", "finetune_local.collector", "--kubeconfig", str(config)]


def _real_server(assets: Path, directory: Path) -> Iterator[Path]:
    processes = Processes(directory)
    token, etcd, peer, port = uuid.uuid4().hex, _free_port(), _free_port(), _free_port()
    config = _write_credentials(directory, port, token)
    etcd_url, peer_url = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    try:
        processes.start(
            "etcd",
            str(assets / "etcd"),
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            "--unsafe-no-fsync",
        )
        processes.start(
            "apiserver", str(assets / "kube-apiserver"), *_flags(directory, port, etcd_url)
        )
        _wait(lambda: _healthy(config), "kube-apiserver", 120)
        if (assets / "kube-controller-manager").exists():
            processes.start(
                "controllers", str(assets / "kube-controller-manager"), *_controllers(config)
            )
        else:
            processes.start("collector", *_collector(config))
        yield config
    finally:
        processes.stop()


def _write_credentials(directory: Path, port: int, token: str) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    certificate.private_key_pem.write_to_path(directory / "server.key")
    authority.cert_pem.write_to_path(directory / "ca.crt")
    (directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (directory / "accounts.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    cluster = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority": str(directory / "ca.crt"),
    }
    config = directory / "admin.kubeconfig"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            }
        )
    )
    return config


def _flags(directory: Path, port: int, etcd_url: str) -> list[str]:
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--token-auth-file={directory / 'tokens.csv'}",
        f"--tls-cert-file={directory / 'server.pem'}",
        f"--tls-private-key-file={directory / 'server.key'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={directory / 'accounts.key'}",
        f"--service-account-signing-key-file={directory / 'accounts.key'}",
        f"--cert-dir={directory}",
    ]


def _controllers(config: Path) -> list[str]:
    wanted = (
        "garbage-collector-controller",
        "namespace-controller",
        "serviceaccount-controller",
        "root-ca-certificate-publisher-controller",
    )
    return [
        f"--kubeconfig={config}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--root-ca-file={config.parent / 'ca.crt'}",
        f"--controllers={','.join(wanted)}",
    ]


def _healthy(config: Path) -> bool:
    done = subprocess.run(
        [str(binaries.kubectl()), "--kubeconfig", str(config), "get", "--raw", "/readyz"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    """Raw requests as the administrator."""
    config = _read(kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    own, bare = (aiohttp.TCPConnector(ssl=_tls(cluster, u)) for u in (user, {}))
    async with (
        aiohttp.ClientSession(connector=own) as session,
        aiohttp.ClientSession(connector=bare) as anonymous,
    ):
        yield Api(session, anonymous, cluster["server"], user.get("token"))


def _read(path: Path) -> Json:
    return yaml.safe_load(path.read_text())


def _tls(cluster: Json, user: Json) -> ssl.SSLContext:
    data, path = cluster.get("certificate-authority-data"), cluster.get("certificate-authority")
    text = base64.b64decode(data).decode() if data else Path(path).read_text()
    context = ssl.create_default_context(cadata=text)
    # Certificates made by hand for tests often lack the key identifiers that strict mode wants.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pem:
            for field in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(user[field]) + b"\n")
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


@pytest.fixture
async def namespace(api: Api) -> AsyncIterator[str]:
    """A namespace of the test's own, furnished with its default ServiceAccount."""
    body = {"metadata": {"generateName": "conformance-"}}
    made = (await api.post("/api/v1/namespaces", body)).body
    name = made["metadata"]["name"]

    async def furnished() -> bool:
        path = f"/api/v1/namespaces/{name}"
        account = await api.get(f"{path}/serviceaccounts/default")
        certificate = await api.get(f"{path}/configmaps/kube-root-ca.crt")
        return account.status == certificate.status == 200

    if (await api.get("/api/v1/namespaces/default/serviceaccounts/default")).status == 404:
        await api.post(
            f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}}
        )
    else:
        await eventually(furnished, "the namespace's ServiceAccount")
    yield name
    await api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def kubectl(kubeconfig: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run the real kubectl: `kubectl("get", "pods", stdin=...)` -> CompletedProcess (text)."""

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binaries.kubectl()), *arguments],
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "KUBECONFIG": str(kubeconfig),
            },
        )

    return run


WIDGET = "/apis/conformance.finetune.dev/v1"


@pytest.fixture
async def widgets(api: Api, namespace: str) -> str:
    """The path of the namespace's Widgets, a custom resource of this suite."""
    definition = _read(Path(__file__).parent / "widget.yaml")
    base = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made = await api.post(base, definition)
    assert made.status in (201, 409), made.body
    path = f"{WIDGET}/namespaces/{namespace}/widgets"

    async def served() -> bool:
        return (await api.get(path)).status == 200

    await eventually(served, "the Widget resource")
    return path


@pytest.fixture(scope="session")
def widget() -> Callable[..., Json]:
    """Make a Widget's body: `widget("name", color="Blue")` -> spec {size: 1, color: Blue}."""

    def make(name: str, **spec: Json) -> Json:
        return {
            "apiVersion": "conformance.finetune.dev/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": {"size": 1, **spec},
        }

    return make

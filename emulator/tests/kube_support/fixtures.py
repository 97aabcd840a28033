"""The server under test, and clients for it; `kube_support.target` says how it is chosen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_local import binaries
from kube_support import target as kube_target
from kube_support.api import Api, Json, connect, eventually


@pytest.fixture(scope="session", name="eventually")
def _eventually() -> Callable[..., Any]:
    """`await eventually(check, "what")`: poll `check` until it gives something true."""
    return eventually


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An administrator's kubeconfig of the target."""
    with kube_target.running(tmp_path_factory.mktemp("server")) as path:
        yield path


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    """Raw requests as the administrator."""
    async with connect(kubeconfig) as connected:
        yield connected


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
            timeout=240,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "KUBECONFIG": str(kubeconfig),
            },
        )

    return run


WIDGET = "/apis/conformance.example.com/v1"


@pytest.fixture
async def widgets(api: Api, namespace: str) -> str:
    """The path of the namespace's Widgets, a custom resource of this suite."""
    definition = yaml.safe_load((Path(__file__).parent / "widget.yaml").read_text())
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
            "apiVersion": "conformance.example.com/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": {"size": 1, **spec},
        }

    return make

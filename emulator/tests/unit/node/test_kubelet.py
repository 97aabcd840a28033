"""Pods of one node beside each other, on an API server that takes whatever it is told."""

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from kube_emulator.client import Object
from kube_emulator.events import Recorder
from kube_emulator.node.containers.images import Catalogue
from kube_emulator.node.kubelet import Kubelet
from kube_emulator.node.pods import volumes
from kube_emulator.node.pods.context import NodeContext
from kube_emulator.node.pods.pod import PodWorker


class Server:
    """Accepts every write."""

    server = "https://127.0.0.1:1"

    async def patch(self, _path: str, body: Object) -> Object:
        return body

    async def create(self, _path: str, body: Object) -> Object:
        return body

    async def delete(self, _path: str, **_: Any) -> None:
        pass


def node(directory: Path) -> Kubelet:
    client: Any = Server()
    recorder = Recorder(client, "kubelet")
    return Kubelet(NodeContext("n", client, recorder, Catalogue(), directory, directory, 1.0))


@pytest.fixture
def kubelet(tmp_path: Path) -> Kubelet:
    return node(tmp_path)


def lost_pod(kubelet: Kubelet, name: str) -> PodWorker:
    """A pod that ran under an earlier node and has failed with it."""
    pod = {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "alpine"}]},
        "status": {"startTime": "2026-01-01T00:00:00Z"},
    }
    kubelet.workers[name] = PodWorker(pod, "127.77.0.1", kubelet.node, kubelet.place_hosts)
    return kubelet.workers[name]


async def test_the_names_of_others_can_be_placed_while_a_pod_is_removed(
    kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, removed, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def remove(directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        loop.call_soon_threadsafe(removed.set)
        go_on.wait(60)

    monkeypatch.setattr(volumes, "remove", remove)
    going, staying = lost_pod(kubelet, "going"), lost_pod(kubelet, "staying")
    going.observe(going.pod | {"metadata": going.pod["metadata"] | {"deletionTimestamp": "now"}})
    life = asyncio.create_task(going.run())
    try:
        await removed.wait()
        kubelet.place_hosts()
    finally:
        go_on.set()
        await life
    assert "staying" in staying.setting.hosts_file.read_text()
    assert not going.setting.directory.exists()


def test_nodes_of_one_host_give_their_pods_no_address_twice(tmp_path: Path) -> None:
    body = {
        "metadata": {"name": "a", "namespace": "default", "uid": "a"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "alpine"}]},
    }
    nodes = [node(tmp_path / str(number)) for number in range(40)]

    async def addresses() -> set[str]:
        for one in nodes:
            one._on_pod(None, body)
        return {one.workers["a"].pod_ip for one in nodes}

    assert len(asyncio.run(addresses())) == len(nodes)

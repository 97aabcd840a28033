"""The Node object and its registration."""

from typing import Any

import pytest

from kube_emulator.client import ApiError, Object
from kube_emulator.node.machine import NOT_READY, node_object, register
from kube_emulator.quantity import parse


class Server:
    """The process edge: one Node, tainted as a real API server's admission does it."""

    def __init__(self, existing: Object | None = None) -> None:
        self.node = existing
        self.patches: list[tuple[str, Object]] = []

    async def create(self, path: str, body: Object) -> Object:
        assert path == "/api/v1/nodes"
        if self.node is not None:
            raise ApiError(409, "AlreadyExists", "nodes emulated already exists")
        self.node = body | {"spec": {"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]}}
        return self.node

    async def patch(self, path: str, body: Object) -> Object:
        self.patches.append((path, body))
        assert self.node is not None
        for part, values in body.items():
            self.node[part] = self.node.get(part, {}) | values
        return self.node

    async def get(self, _: str) -> Object:
        assert self.node is not None
        return self.node


def node(**extra: str) -> Object:
    return node_object("emulated", "127.0.0.1", 10250, extra)


def test_capacity_is_the_machines_unless_told_otherwise() -> None:
    plain = node()["status"]["allocatable"]
    assert int(plain["cpu"]) >= 1
    assert parse(plain["memory"]) > 2**28
    told = node(cpu="64", **{"nvidia.com/gpu": "8"})["status"]
    assert told["capacity"] == told["allocatable"]
    assert (told["capacity"]["cpu"], told["capacity"]["nvidia.com/gpu"]) == ("64", "8")
    assert told["capacity"]["memory"] == plain["memory"]


def test_the_api_server_finds_the_logs() -> None:
    status = node()["status"]
    assert status["addresses"] == [{"type": "InternalIP", "address": "127.0.0.1"}]
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250


async def test_a_new_node_is_ready_and_loses_the_taint() -> None:
    server: Any = Server()
    await register(server, node())
    assert server.node["spec"]["taints"] is None
    conditions = {one["type"]: one["status"] for one in server.node["status"]["conditions"]}
    assert conditions["Ready"] == "True"


async def test_a_known_node_is_brought_up_to_date() -> None:
    own_taint = {"key": "mine", "effect": "NoSchedule"}
    old = {"metadata": {"labels": {}}, "spec": {"taints": [own_taint]}, "status": {}}
    server: Any = Server(old)
    await register(server, node())
    assert server.node["spec"]["taints"] == [own_taint]
    assert server.node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250
    assert [path for path, _ in server.patches] == [
        "/api/v1/nodes/emulated",
        "/api/v1/nodes/emulated/status",
    ]


async def test_any_other_refusal_ends_the_registration() -> None:
    class Refusing(Server):
        async def create(self, path: str, body: Object) -> Object:
            raise ApiError(403, "Forbidden", "no")

    server: Any = Refusing()
    with pytest.raises(ApiError, match="Forbidden"):
        await register(server, node())

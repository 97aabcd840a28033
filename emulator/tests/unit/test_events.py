"""Events are counted, not repeated, and never an error."""

from typing import Any

import pytest

from kube_emulator.client import ApiError, Object
from kube_emulator.events import KEPT, Recorder

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
}


class Server:
    """The process edge: keeps events by path."""

    def __init__(self) -> None:
        self.events: dict[str, Object] = {}
        self.refuses = False

    async def create(self, path: str, body: Object) -> Object:
        if self.refuses:
            raise ApiError(403, "Forbidden", "the namespace is being terminated")
        self.events[f"{path}/{body['metadata']['name']}"] = body
        return body

    async def patch(self, path: str, body: Object) -> Object:
        if path not in self.events:
            raise ApiError(404, "NotFound", "expired")
        self.events[path] |= body
        return body


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def recorder(server: Server) -> Recorder:
    client: Any = server
    return Recorder(client, "kubelet", "node")


async def test_an_event_says_who_what_and_why(server: Server, recorder: Recorder) -> None:
    await recorder.event(POD, "Warning", "Failed", "x" * 2000)
    [event] = server.events.values()
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "Failed", 1)
    assert event["message"] == "x" * 1024
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "ns",
        "name": "p",
        "uid": "u",
    }
    assert event["source"] == {"component": "kubelet", "host": "node"}


async def test_repetitions_are_counted(server: Server, recorder: Recorder) -> None:
    for _ in range(3):
        await recorder.event(POD, "Warning", "BackOff", "again")
    await recorder.event(POD, "Warning", "BackOff", "differently")
    assert sorted(event["count"] for event in server.events.values()) == [1, 3]


async def test_an_expired_event_begins_anew(server: Server, recorder: Recorder) -> None:
    await recorder.event(POD, "Normal", "Started", "m")
    server.events.clear()
    await recorder.event(POD, "Normal", "Started", "m")
    await recorder.event(POD, "Normal", "Started", "m")
    assert [event["count"] for event in server.events.values()] == [1]


async def test_a_lost_event_is_no_error(server: Server, recorder: Recorder) -> None:
    server.refuses = True
    await recorder.event(POD, "Normal", "Started", "m")
    server.refuses = False
    await recorder.event(POD, "Normal", "Started", "m")
    assert len(server.events) == 1


async def test_memory_is_bounded(server: Server, recorder: Recorder) -> None:
    for number in range(KEPT + 2):
        await recorder.event(POD, "Normal", "Started", str(number))
    assert len(recorder._counts) == KEPT

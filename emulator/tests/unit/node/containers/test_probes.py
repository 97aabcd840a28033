"""Thresholds of probes, against scripted answers."""

import asyncio
from typing import Any

import pytest

from kube_emulator.node.containers import probes
from kube_emulator.node.containers.probes import Probe


class Scripted:
    """A container whose exec probe answers from a script, then hangs."""

    def __init__(self, answers: str) -> None:
        self.answers = [None if one == "+" else "no" for one in answers]

    async def execute(self, _: list[str]) -> str | None:
        if not self.answers:
            await asyncio.sleep(3600)
        return self.answers.pop(0)


class Notes:
    def __init__(self) -> None:
        self.texts: list[str] = []

    async def __call__(self, text: str) -> None:
        self.texts.append(text)


def probe(**spec: Any) -> Probe:
    defaults = {"exec": {"command": ["x"]}, "periodSeconds": 0, "timeoutSeconds": 60}
    return Probe(defaults | spec, {}, "127.77.0.1")


@pytest.mark.parametrize(
    ("answers", "spec", "started"),
    [
        ("+", {}, True),
        ("--+", {}, True),
        ("---", {}, False),
        ("-----+", {"failureThreshold": 6}, True),
        ("-+", {"failureThreshold": 1}, False),
        ("+-++", {"successThreshold": 2}, True),
    ],
)
async def test_startup(answers: str, spec: dict[str, int], started: bool) -> None:
    container: Any = Scripted(answers)
    assert await probes.until_started(probe(**spec), container, Notes()) is started


async def test_liveness_counts_failures_in_a_row() -> None:
    container: Any = Scripted("+--+--+---")
    notes = Notes()
    await asyncio.wait_for(probes.until_dead(probe(), container, notes), 30)
    assert container.answers == []
    assert len(notes.texts) == 7


async def test_readiness_comes_and_goes() -> None:
    container: Any = Scripted("----+-+---+")
    changes: list[bool] = []
    following = asyncio.create_task(
        probes.follow_readiness(probe(), container, Notes(), changes.append)
    )
    async with asyncio.timeout(30):
        while True:
            if len(changes) == 3:
                break
            await asyncio.sleep(0.01)
    following.cancel()
    assert changes == [True, False, True]


async def test_a_slow_answer_is_a_failure() -> None:
    container: Any = Scripted("")
    trouble = await probe(timeoutSeconds=0.05).run(container)
    assert trouble == "probe timed out after 0.05s"


async def test_an_unreachable_port_is_a_failure() -> None:
    container: Any = Scripted("")
    tcp = Probe({"tcpSocket": {"port": 1}}, {}, "127.0.0.1")
    refused = await tcp.run(container)
    assert refused is not None
    web = Probe(
        {"httpGet": {"port": "web"}}, {"ports": [{"name": "web", "containerPort": 1}]}, "127.0.0.1"
    )
    trouble = await web.run(container)
    assert trouble is not None
    assert trouble.startswith('Get "http://127.0.0.1:1/"')

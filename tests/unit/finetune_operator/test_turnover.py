"""Jobs that come and go leave nothing in the operator's memory."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.cache import _TOMBSTONES, Cache
from finetune_operator.controller import Controller
from finetune_operator.events import _REMEMBERED, Transition
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.jobs import bot_job
from support.operator.model.api_server import ModelApi
from support.operator.model.simulated_time import simulated, work
from support.operator.model.world import World

OWN = ("finetune_operator.", "prometheus_client.")
SETTINGS = Settings(trainer_image="t", retry_base_seconds=0)
TURN_SECONDS = 5.0  # so that no job changes faster than the operator looks at it


class Operator:
    """A whole operator, watches aside, on a World that many jobs pass through."""

    def __init__(self) -> None:
        self.world = World()
        api: Any = ModelApi(self.world, lambda body: None)
        cache = Cache()
        cache.synced = True
        self.controller = Controller(SETTINGS, api, cache, BACKEND)
        parts = (self.controller._queue.run(), self.controller._recorder.run())
        self._tasks = [asyncio.create_task(part) for part in parts]

    async def fill(self) -> None:
        """Have the operator remember as many deletions and Events as it ever does."""
        for number in range(_TOMBSTONES):
            metadata = {"namespace": "team", "name": "gone", "uid": f"gone-{number}"}
            gone = {"apiVersion": "finetune.dev/v1alpha1", "kind": KIND, "metadata": metadata}
            self.controller.notice("DELETED", gone)
        for number in range(_REMEMBERED):
            told = Transition(False, "Running", str(number))
            await self.controller._recorder.record(gone, told, self.world.now)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def turn(self) -> None:
        """Deliver what happened, let the operator do its passes, and let others do their part."""
        work(TURN_SECONDS)
        self.world.collect()
        self.world.train_operator()
        for pod in self.world.all("Pod"):
            self.world.kubelet(pod["metadata"]["name"])
        for kind in list(self.world.pending):
            for event, body in self.world.deliveries(kind, 1_000):
                self.controller.notice(event, body)
        for _ in range(100):
            await asyncio.sleep(0)

    async def job_lives(self, name: str) -> None:
        """A pod vanishes, the next attempt finds its data wrong, the job is deleted."""
        body = bot_job(workers={"replicas": 2})
        self.world.add({**body, "metadata": {**body["metadata"], "name": name}})
        await self.turns(4)
        self.world.delete_pod(f"{name}-a1-worker-0")
        await self.turns(4)
        self.world.end(f"{name}-a2-master-0", "DataInvalid")
        await self.turns(4)
        attempts = self.world.job(name)["status"]["attempts"]
        assert [a["reason"] for a in attempts] == ["PodLost", "DataInvalid"]
        self.world.drop(KIND, name)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await self.turn()


def held(root: object) -> list[str]:
    """Return every container that the operator holds, by its path, with its size."""
    found, seen, left = [], set(), deque([("", root)])
    while left:
        path, value = left.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict | list | tuple | set | deque):
            found.append(f"{path}: {len(value)}")
        left.extend(parts(path, value))
    return sorted(found)


def parts(path: str, value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        # What a key stands for is counted once, so that other keys make no difference.
        yield from ((f"{path}[]", item) for item in value.values())
    elif isinstance(value, list | tuple | set | deque):
        yield from ((f"{path}[]", item) for item in value)
    elif isinstance(value, asyncio.Queue):
        yield f"{path}._queue", value._queue  # type: ignore[attr-defined]
    elif type(value).__module__.startswith(OWN):
        names = vars(value) if hasattr(value, "__dict__") else type(value).__slots__
        yield from ((f"{path}.{name}", getattr(value, name)) for name in names)


@pytest.mark.parametrize(
    ("name", "pause"),
    [("job-{}", 4), ("again", 4), ("again", 0)],
    ids=["other names", "the same name", "the same name at once"],
)
def test_jobs_that_were_deleted_leave_nothing_behind(name: str, pause: int) -> None:
    simulated(jobs_come_and_go(name, pause))


async def jobs_come_and_go(name: str, pause: int) -> None:
    operator = Operator()
    await operator.fill()
    sizes = []
    for number in range(6):
        await operator.job_lives(name.format(number))
        await operator.turns(pause)
        sizes.append(held(operator.controller))
    assert sizes[-1] == sizes[1]
    await operator.turns(4)
    assert not operator.controller._cache._families
    await operator.stop()

"""The queue of keys that controllers work through."""

import asyncio
from collections import Counter

import pytest

from kube_emulator.client import ApiError
from kube_emulator.work_queue import WorkQueue


async def test_keys_that_wait_are_not_doubled_and_come_in_order() -> None:
    done: list[str] = []
    idle = asyncio.Event()

    async def reconcile(key: str) -> None:
        done.append(key)
        if key == "last":
            idle.set()

    queue = WorkQueue(reconcile)
    for key in ("a", "b", "a", "last"):
        queue.add(key)
    worker = asyncio.create_task(queue.run([]))
    await idle.wait()
    worker.cancel()
    assert done == ["a", "b", "last"]


async def test_a_key_added_during_its_own_pass_gets_another() -> None:
    passes: Counter[str] = Counter()
    twice = asyncio.Event()

    async def reconcile(key: str) -> None:
        passes[key] += 1
        if passes[key] == 1:
            queue.add(key)
        else:
            twice.set()

    queue = WorkQueue(reconcile)
    queue.add("a")
    worker = asyncio.create_task(queue.run([]))
    await asyncio.wait_for(twice.wait(), 10)
    worker.cancel()


async def test_a_refused_pass_is_tried_again() -> None:
    tries = asyncio.Queue[str]()
    refusals = [ApiError(409, "Conflict", "changed"), ApiError(0, "Unreachable", "gone")]

    async def reconcile(key: str) -> None:
        tries.put_nowait(key)
        if refusals:
            raise refusals.pop()

    queue = WorkQueue(reconcile, retry_seconds=0.0)
    queue.add("a")
    worker = asyncio.create_task(queue.run([]))
    for _ in range(3):
        assert await asyncio.wait_for(tries.get(), 10) == "a"
    worker.cancel()


async def test_any_other_failure_ends_the_queue() -> None:
    async def reconcile(_: str) -> None:
        raise KeyError("a mistake in the controller")

    queue = WorkQueue(reconcile)
    queue.add("a")
    with pytest.raises(KeyError):
        await asyncio.wait_for(queue.run([]), 10)

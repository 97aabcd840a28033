"""The queue loses no key, handles none twice at once, and lets none hold up the others."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from finetune_operator.cluster.queue import RetryLater, WorkQueue


@asynccontextmanager
async def running(queue: WorkQueue[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the condition is the test's
            await asyncio.sleep(0.001)


async def test_a_key_added_twice_is_handled_once() -> None:
    handled: list[str] = []

    async def handle(key: str) -> None:
        handled.append(key)

    queue: WorkQueue[str] = WorkQueue(handle)
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    async with running(queue):
        await until(lambda: len(queue) == 0 and len(handled) >= 2)
    assert sorted(handled) == ["a", "b"]


async def test_a_key_added_while_it_is_handled_is_handled_again_and_never_twice_at_once() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    at_once, most, count = 0, 0, 0

    async def handle(_: str) -> None:
        nonlocal at_once, most, count
        at_once, count = at_once + 1, count + 1
        most = max(most, at_once)
        entered.set()
        await leave.wait()
        at_once -= 1

    queue: WorkQueue[str] = WorkQueue(handle)
    async with running(queue):
        queue.add("a")
        await entered.wait()
        queue.add("a")
        queue.add("a")
        leave.set()
        await until(lambda: count == 2 and at_once == 0)
    assert most == 1


async def test_a_slow_key_does_not_hold_up_another() -> None:
    never, done = asyncio.Event(), asyncio.Event()

    async def handle(key: str) -> None:
        if key == "slow":
            await never.wait()
        done.set()

    queue: WorkQueue[str] = WorkQueue(handle)
    async with running(queue):
        queue.add("slow")
        queue.add("fast")
        await asyncio.wait_for(done.wait(), 10)


async def test_a_failing_key_comes_back_later_and_later_until_it_succeeds() -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def handle(_: str) -> None:
        times.append(loop.time())
        if len(times) < 4:
            raise RetryLater

    queue: WorkQueue[str] = WorkQueue(handle, base=0.02, cap=0.04)
    async with running(queue):
        queue.add("a")
        await until(lambda: len(times) == 4)
        first, second, third = (b - a for a, b in itertools.pairwise(times))
        resolution = 0.001  # of the loop's clock
        assert first >= 0.02 - resolution
        assert second >= 0.04 - resolution
        assert third >= 0.04 - resolution
        assert queue._failures == {}


async def test_the_back_off_is_each_keys_own_and_has_a_cap_for_ever() -> None:
    good = False

    async def handle(key: str) -> None:
        if key == "bad" and not good:
            raise RetryLater

    queue: WorkQueue[str] = WorkQueue(handle, base=0.25, cap=1.5)
    assert [await queue._handle("bad") for _ in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert await queue._handle("good") is None
    for _ in range(2_000):
        delay = await queue._handle("bad")
    assert delay == 1.5
    good = True
    assert await queue._handle("bad") is None
    good = False
    assert await queue._handle("bad") == 0.25


async def test_no_appointment_outlives_the_queue() -> None:
    async def handle(_: str) -> float:
        return 3600.0

    queue: WorkQueue[str] = WorkQueue(handle)
    async with running(queue):
        queue.add("a")
        await until(lambda: "a" in queue._timers)
        (timer,) = queue._timers.values()
    assert timer.cancelled()


async def test_a_key_comes_back_when_it_asked_to() -> None:
    count = 0

    async def handle(_: str) -> float | None:
        nonlocal count
        count += 1
        return 0.001 if count < 3 else None

    queue: WorkQueue[str] = WorkQueue(handle)
    async with running(queue):
        queue.add("a")
        await until(lambda: count == 3)
    assert queue._timers == {}


async def test_being_added_takes_the_place_of_an_appointment() -> None:
    count = 0

    async def handle(_: str) -> float | None:
        nonlocal count
        count += 1
        return 3600.0 if count == 1 else None

    queue: WorkQueue[str] = WorkQueue(handle)
    async with running(queue):
        queue.add("a")
        await until(lambda: "a" in queue._timers)
        queue.add("a")
        await until(lambda: count == 2)
        assert queue._timers == {}

"""However many keys a group has, and however often they change, another's turn comes soon."""

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest

from finetune_operator.cluster.queue import RetryLater, WorkQueue
from support.operator.model.simulated_time import simulated, work

Key = tuple[str, int]
REQUEST_SECONDS = 0.05


def queue_of(handle: Callable[[Key], object]) -> WorkQueue[Key]:
    return WorkQueue(handle, group=lambda key: key[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("changes_per_second", [1, 20])
def test_a_hundred_large_jobs_that_change_all_the_time_delay_another_by_no_second(
    changes_per_second: int,
) -> None:
    asked: dict[Key, float] = {}
    delays: list[float] = []
    passes = 0

    async def handle(key: Key) -> None:
        nonlocal passes
        loop = asyncio.get_running_loop()
        large = key[0] == "large"
        passes += large
        for _ in range(4):  # requests, and what is computed between them
            work(0.005 if large else 0.001)
            await asyncio.sleep(REQUEST_SECONDS)
        if not large:
            delays.append(loop.time() - asked[key])

    async def story() -> None:
        queue = queue_of(handle)
        task = asyncio.create_task(queue.run())
        for tick in range(20 * changes_per_second):
            for number in range(100):
                queue.add(("large", number))
            if tick % changes_per_second == 0:
                key = ("small", tick)
                asked[key] = asyncio.get_running_loop().time()
                queue.add(key)
            await asyncio.sleep(1 / changes_per_second)
        await asyncio.sleep(10)
        task.cancel()

    simulated(story())
    assert len(delays) == 20
    assert max(delays) <= 1
    assert passes > 500, "nor does the large one starve"


def test_a_group_whose_requests_hang_holds_up_no_other() -> None:
    done: list[float] = []

    async def handle(key: Key) -> None:
        if key[0] == "hangs":
            await asyncio.sleep(3600)
        done.append(asyncio.get_running_loop().time())

    async def story() -> None:
        queue = queue_of(handle)
        task = asyncio.create_task(queue.run())
        for number in range(100):
            queue.add(("hangs", number))
        await asyncio.sleep(1)
        queue.add(("well", 0))
        await asyncio.sleep(1)
        task.cancel()
        assert done == [1]

    simulated(story())


def test_groups_take_turns() -> None:
    order: list[str] = []

    async def handle(key: Key) -> None:
        order.append(key[0])
        await asyncio.sleep(1)

    async def story() -> None:
        queue = queue_of(handle)
        for group in "abc":
            for number in range(20):
                queue.add((group, number))
        assert len(queue) == 60
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(10)
        task.cancel()
        assert order[:6] == [*"abcabc"]
        assert len(order) == 60
        assert len(queue) == 0

    simulated(story())


def times_of(answers: Iterator[float | None], seconds: int) -> list[float]:
    """When a key is handled whose handler returns the `answers`, and that is asked for 20
    times a second."""
    times: list[float] = []

    async def handle(_: Key) -> float | None:
        times.append(asyncio.get_running_loop().time())
        return next(answers)

    async def story() -> None:
        queue = queue_of(handle)
        task = asyncio.create_task(queue.run())
        for _ in range(20 * seconds):
            queue.add(("a", 0))
            await asyncio.sleep(0.05)
        task.cancel()

    simulated(story())
    return times


@pytest.mark.parametrize("after", [None, 0.0, 3600.0])
def test_a_key_that_never_rests_is_slowed_down_to_one_a_second(after: float | None) -> None:
    times = times_of(itertools.repeat(after), 60)
    assert len([t for t in times if t < 0.5]) == 10, "a burst is no haste"
    assert 65 <= len(times) <= 71


def test_a_key_that_rested_may_hurry_again() -> None:
    times: list[float] = []

    async def handle(_: Key) -> None:
        times.append(asyncio.get_running_loop().time())

    async def story() -> None:
        queue = queue_of(handle)
        task = asyncio.create_task(queue.run())
        for start in (0, 100):
            await asyncio.sleep(start - asyncio.get_running_loop().time())
            for _ in range(10):
                queue.add(("a", 0))
                await asyncio.sleep(0.01)
        task.cancel()

    simulated(story())
    assert len([t for t in times if t < 1]) == len([t for t in times if 100 <= t < 101]) == 10


def test_nothing_is_remembered_of_keys_that_rest_or_are_no_more() -> None:
    async def handle(key: Key) -> None:
        if key[0] == "fails":
            raise RetryLater

    async def story() -> None:
        queue = queue_of(handle)
        task = asyncio.create_task(queue.run())
        for number in range(1000):
            queue.add(("a", number))
            await asyncio.sleep(0.1)
        assert len(queue._used) <= 20
        assert not queue._turns._busy
        queue.add(("fails", 0))
        await asyncio.sleep(0.1)
        queue.forget(("fails", 0))
        queue.forget(("a", 999))
        await asyncio.sleep(0)
        assert ("fails", 0) not in queue._used
        assert queue._failures == {}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    simulated(story())

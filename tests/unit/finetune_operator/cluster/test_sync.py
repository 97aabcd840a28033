"""Nothing is decided before all was listed; a list tells what changed, and fails in peace."""

import asyncio
from dataclasses import replace

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Listing
from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.sync import Synchroniser
from support.operator.model.simulated_time import simulated
from support.operator.story import EXPIRED, KEY, KINDS, UNWATCHED, Faulty, Story, world


async def test_the_gate_opens_after_the_first_complete_list() -> None:
    story = Story()
    story.api.failures = 2
    added: list[bool] = []
    story.sync.add = lambda key: added.append(story.cache.synced)
    async with story.running():
        await story.synced()
    assert story.api.failures == 0
    assert added == [False, False, True, True], "all are looked at once they may be"


async def test_jobs_come_last_so_that_none_seems_childless() -> None:
    api = Faulty(world())
    sync = Synchroniser(api, Cache(), KINDS, ("a", "b"), lambda key: None)
    for namespace in ("a", "b"):
        await sync.list_all(namespace)
    assert [kind for kind, _, _ in api.asked].index(KIND) == len(api.asked) // 2 - 1
    assert {namespace for _, namespace, _ in api.asked} == {"a", "b"}
    selectors = {selector for kind, _, selector in api.asked if kind != KIND}
    assert selectors == {"app.kubernetes.io/managed-by=finetune-operator"}


async def test_a_later_list_names_the_jobs_that_changed() -> None:
    made, added = world(), []
    sync = Synchroniser(Faulty(made), Cache(), KINDS, (), added.append)
    await sync.list_all(None)
    added.clear()
    await sync.list_all(None)
    assert added == []
    made.store({**made.job()})
    await sync.list_all(None)
    assert added == [KEY]


async def test_lists_that_fail_are_tried_ever_less_until_they_do_not() -> None:
    story = Story()
    story.api.failures = 5
    async with story.running():
        await story.synced()
        assert story.slept == [1, 2, 4, 8, 8]


class Slow(Faulty):
    """Takes longer over each list than watches that are in order last."""

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        await asyncio.sleep(10)
        return await super().list_objects(kind, namespace, selector, page)


def test_lists_that_take_long_to_fail_are_tried_ever_less_too() -> None:
    async def times() -> None:
        story = Story()

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            if seconds != UNWATCHED:
                story.slept.append(seconds)

        story.sync.sleep = sleep
        async with story.running():
            await asyncio.sleep(1)
            story.sync.api = Slow(story.world, failures=4)
            story.api.shown["Lease"].put_nowait(EXPIRED)
            await asyncio.sleep(90)
        assert story.slept == [1, 2, 4, 8]

    simulated(times())


async def test_what_a_list_showed_before_it_broke_off_is_told_all_the_same() -> None:
    class Breaks(Faulty):
        async def list_objects(
            self, kind: str, namespace: str | None, selector: str, page: str = ""
        ) -> Listing:
            if page:
                raise ApiError(410, "Expired", "the continue parameter is too old")
            found = await super().list_objects(kind, namespace, selector)
            return replace(found, following="2" if kind == KIND else "")

    cache, added = Cache(), []
    with pytest.raises(ApiError):
        await Synchroniser(Breaks(world()), cache, KINDS, (), added.append).list_all(None)
    assert KEY in cache, "so that neither a watch nor the next list tells it as news"
    assert added == [KEY]


class InPages(Faulty):
    """Lists one object a page."""

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        whole = await super().list_objects(kind, namespace, selector)
        at = int(page or 0)
        following = str(at + 1) if at + 1 < len(whole.items) else ""
        return Listing(whole.items[at : at + 1], whole.version, following)


async def test_what_any_page_of_a_list_has_is_there_and_what_none_has_is_gone() -> None:
    made, cache = world(), Cache()
    for name in ("dog", "cat"):
        made.add({"kind": KIND, "metadata": {"name": name, "namespace": "team"}})
    sync = Synchroniser(InPages(made), cache, KINDS, (), lambda key: None)
    for _ in range(2):
        await sync.list_all(None)
        assert {key.name for key, _ in cache.jobs()} == {"bot", "dog", "cat"}
    made.drop(KIND, "dog")
    await sync.list_all(None)
    assert {key.name for key, _ in cache.jobs()} == {"bot", "cat"}

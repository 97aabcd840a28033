"""Watches tell what comes after a list, and lists what watches can not."""

import asyncio
from typing import Any

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Change, Unreachable, Unreadable
from support.operator.model.simulated_time import simulated
from support.operator.story import EXPIRED, KEY, KINDS, POLL, Story


async def test_a_watch_begins_at_its_list_and_goes_on_from_what_it_has_shown() -> None:
    story = Story()
    async with story.running():
        (listed,) = await story.watches(1)
        assert listed == str(story.world.version)
        shown = story.api.shown["Lease"]
        body = {"kind": "Lease", "metadata": {"name": "bot-a1"}}
        for what in (Change("70", body), Change("71"), None):
            shown.put_nowait(what)
        await story.watches(2)
        for what in (Change("72", body, deleted=True), Unreachable("cut off")):
            shown.put_nowait(what)
        assert await story.watches(3) == [listed, "71", "72"]
        assert story.noticed == [("MODIFIED", "bot-a1"), ("DELETED", "bot-a1")]
    assert [kind for kind, _, _ in story.api.asked].count("Lease") == 1
    assert {kind for kind, _, _ in story.api.watched} == set(KINDS)


@pytest.mark.parametrize("failure", [EXPIRED, ApiError(500, "", "etcd"), Unreadable("too large")])
async def test_what_a_watch_can_not_tell_a_list_does(failure: Exception) -> None:
    story = Story()
    async with story.running():
        await story.watches(1)
        story.world.version += 10
        story.api.shown["Lease"].put_nowait(failure)
        listed, again = await story.watches(2)
    assert int(again) == int(listed) + 10
    assert [kind for kind, _, _ in story.api.asked].count("Lease") == 2


async def test_a_watch_goes_on_from_what_it_has_shown_once_a_server_has_less_to_do() -> None:
    story = Story()
    async with story.running():
        await story.watches(1)
        busy = ApiError(429, "TooManyRequests", "try again later")
        for what in (Change("70"), busy, busy):
            story.api.shown["Lease"].put_nowait(what)
        assert (await story.watches(3))[1:] == ["70", "70"]
    assert [kind for kind, _, _ in story.api.asked].count("Lease") == 1


async def test_what_may_be_listed_but_not_watched_is_listed_ever_less() -> None:
    story = Story()
    async with story.running():
        for times in range(1, 7):
            await story.watches(times)
            story.api.shown["Lease"].put_nowait(ApiError(403, "Forbidden", "cannot watch"))
        await story.watches(7)
    assert story.slept == [1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize("what", [None, Unreachable("refused"), EXPIRED])
async def test_a_watch_that_ends_again_and_again_is_asked_for_ever_less(what: Any) -> None:
    story = Story()
    async with story.running():
        await story.watches(1)
        for _ in range(7):
            story.api.shown["Lease"].put_nowait(what)
        await story.watches(8)
        assert story.slept[:5] == [1, 2, 4, 8, 8]
        story.slept.clear()
        for end in (Change("70"), None, what, what):
            story.api.shown["Lease"].put_nowait(end)
        await story.watches(11)
        assert story.slept[:1] == [1], "it has shown something"


async def test_a_backend_that_is_served_later_is_found_at_once() -> None:
    story = Story()
    story.api.missing = {"PyTorchJob"}
    async with story.running():
        await story.synced()
        await story.polls()
        assert not story.added.count("bot") > 2
        story.added.clear()
        story.api.missing.clear()
        await story.watches(1, "PyTorchJob")
    assert story.added == ["bot", "other"], "who waits for it need not wait"
    assert story.unwatched == 0
    assert set(story.slept) == {POLL}


async def test_a_backend_that_goes_and_comes_again_is_watched_again() -> None:
    story = Story()
    async with story.running():
        await story.watches(1, "PyTorchJob")
        story.api.missing = {"PyTorchJob"}
        story.api.shown["PyTorchJob"].put_nowait(None)
        await story.polls()
        story.added.clear()
        story.api.missing.clear()
        await story.watches(3, "PyTorchJob")
    assert story.added == ["bot", "other"]


async def test_jobs_that_are_served_later_are_listed_and_watched_at_once() -> None:
    story = Story()
    story.api.missing = {KIND}
    async with story.running():
        await story.polls()
        assert not story.cache.synced, "whoever is ready has seen the jobs"
        assert story.unwatched == 0, "there is nothing to be watched"
        story.api.missing.clear()
        await story.synced()
        assert story.unwatched == 1
    assert set(story.added) == {"bot", "other"}


async def test_jobs_are_listed_once_and_again_when_a_watch_begins_or_ends() -> None:
    story = Story()

    def lists() -> int:
        return [kind for kind, _, _ in story.api.asked].count(KIND)

    async with story.running():
        await story.synced()
        await story.watches(1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert lists() == 1
        for number, news in enumerate((lambda: story.sync.begin(None), story.sync.end), 2):
            story.world.objects.pop((KIND, "other"), None)
            news()
            await story.until(lambda n=number: lists() == n)  # type: ignore[misc]
        await story.until(lambda: story.jobs() == {"bot"})


def test_who_watches_jobs_is_reminded_of_it_ever_less() -> None:
    waits: list[float] = []

    async def times() -> None:
        story = Story()
        story.sync.sleep = asyncio.sleep
        story.sync.unwatched = lambda: waits.append(asyncio.get_running_loop().time())
        async with story.running():
            await story.synced()
            await asyncio.sleep(205)
            assert waits == [], "they are watched"
            story.sync.end()
            await asyncio.sleep(195)
            story.sync.begin(None)
            story.sync.end()
            await asyncio.sleep(15)

    simulated(times())
    assert [round(second) for second in waits] == [215, 235, 275, 355, 410]


@pytest.mark.parametrize("again", [None, "another", "labelled"])
async def test_what_no_watch_shows_is_asked_for_until_it_is_gone(again: str | None) -> None:
    story = Story()
    body: Any = {"kind": "Lease", "metadata": {"name": "bot-a1", "namespace": "team"}}
    async with story.running():
        await story.synced()
        story.cache.answered(story.world.add(body))
        story.added.clear()
        newer = story.world.store({**story.world.objects["Lease", "bot-a1"], "spec": {"a": 1}})
        await story.until(lambda: story.cache.find(KEY, "Lease", "bot-a1") == newer)
        assert story.added == ["bot"]
        story.added.clear()
        if again == "labelled":
            labels = {"app.kubernetes.io/managed-by": "finetune-operator"}
            story.world.store({**newer, "metadata": {**newer["metadata"], "labels": labels}})
            await story.until(lambda: story.cache.unwatched() == [])
            assert story.cache.find(KEY, "Lease", "bot-a1"), "a watch tells if it goes"
            return
        story.world.drop("Lease", "bot-a1")
        if again:
            story.world.add(body)
        await story.until(lambda: story.cache.find(KEY, "Lease", "bot-a1") is None)
        assert story.added == ["bot"]
        assert story.cache.unwatched() == []

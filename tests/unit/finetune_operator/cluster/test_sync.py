"""Nothing is decided before all was listed; then watches tell, and lists what they can not."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Change, Listing, Unreachable, Unreadable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.sync import Synchroniser
from support.operator.backends import ONE_OBJECT
from support.operator.model.api_server import ModelApi
from support.operator.model.simulated_time import simulated
from support.operator.model.world import World, child_kinds

KEY = Key("team", "bot")
KINDS = child_kinds(ONE_OBJECT)
POLL, UNWATCHED = 3, 30  # seconds
EXPIRED = ApiError(410, "Expired", "too old resource version")


def world() -> World:
    made = World()
    made.add({"kind": KIND, "metadata": {"name": "bot", "namespace": "team"}})
    return made


class Faulty(ModelApi):
    """Fails the first lists; does not serve `missing` kinds; lets nobody read `forbidden`
    namespaces, and breaks down over those that are `broken`. Its watches show what a test puts into
    `shown`, by kind: changes, errors, and None for an end."""

    def __init__(self, of: World, failures: int = 0) -> None:
        super().__init__(of, lambda body: None)
        self.failures = failures
        self.failure: Exception = Unreachable("away")
        self.missing: set[str] = set()
        self.forbidden: set[str] = set()
        self.broken: set[str] = set()
        self.asked: list[tuple[str, str | None, str]] = []
        self.watched: list[tuple[str, str | None, str]] = []
        self.shown: dict[str, asyncio.Queue[Any]] = {kind: asyncio.Queue() for kind in KINDS}

    def _refuse(self, kind: str, namespace: str | None) -> None:
        if kind in self.missing:
            raise ApiError(404, "", "404 page not found")
        if namespace in self.forbidden and kind != "PyTorchJob":
            raise ApiError(403, "Forbidden", "the operator cannot list here")

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        self.asked.append((kind, namespace, selector))
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise self.failure
        self._refuse(kind, namespace)
        if namespace in self.broken:
            raise ApiError(500, "InternalError", "a conversion webhook is away")
        found = await super().list_objects(kind, namespace, selector)
        items = [i for i in found.items if namespace in (None, i["metadata"]["namespace"])]
        return Listing(tuple(items), found.version)

    async def watch(
        self, kind: str, namespace: str | None, selector: str, version: str
    ) -> AsyncGenerator[Change]:
        self.watched.append((kind, namespace, version))
        assert selector == "app.kubernetes.io/managed-by=finetune-operator"
        self._refuse(kind, namespace)
        while (what := await self.shown[kind].get()) is not None:
            if isinstance(what, Exception):
                raise what
            yield what


class Story:
    """A synchroniser at work, whose pauses take no time."""

    def __init__(self, namespaces: tuple[str, ...] = (), selector: str = "") -> None:
        self.world = world()
        self.world.add({"kind": KIND, "metadata": {"name": "other", "namespace": "b"}})
        self.api, self.cache = Faulty(self.world), Cache()
        self.added: list[str] = []
        self.noticed: list[tuple[str, str]] = []
        self.unwatched = 0
        self.slept: list[float] = []
        self.scopes = namespaces or (None,)
        self.sync = Synchroniser(
            self.api,
            self.cache,
            KINDS,
            namespaces,
            lambda key: self.added.append(key.name),
            lambda event, body: self.noticed.append((event, body["metadata"]["name"])),
            self._unwatched,
            selector,
            self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        if seconds != UNWATCHED:
            self.slept.append(seconds)
        await asyncio.sleep(0)

    def _unwatched(self) -> None:
        self.unwatched += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        for scope in self.scopes:
            self.sync.begin(scope)
        task = asyncio.create_task(self.sync.run())
        yield
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - the condition is the test's
                await asyncio.sleep(0)

    async def synced(self) -> None:
        await self.until(lambda: self.cache.synced)

    async def polls(self, times: int = 2) -> None:
        """Let it find out what changed, if it looks."""
        seen = self.slept.count(POLL)
        await self.until(lambda: self.slept.count(POLL) >= seen + times)

    async def watches(self, times: int, kind: str = "Lease") -> list[str]:
        """Return since which versions a kind was watched, once it is for the nth time."""

        def since() -> list[str]:
            return [version for k, _, version in self.api.watched if k == kind]

        await self.until(lambda: len(since()) >= times)
        return since()

    def jobs(self) -> set[str]:
        return {key.name for key, _ in self.cache.jobs()}


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


async def test_a_namespace_that_may_not_be_read_holds_up_no_other() -> None:
    story = Story(("team", "b"))
    story.api.forbidden = {"team"}
    async with story.running():
        await story.synced()
        assert story.cache.closed == {"team"}
        assert story.jobs() == {"other"}
        assert story.cache.decides(Key("b", "other"))
        assert not story.cache.decides(Key("team", "bot"))


async def test_a_namespace_that_is_lost_is_forgotten_and_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    story = Story(("team", "b"))
    async with story.running():
        await story.watches(2)
        story.added.clear()
        story.api.forbidden = {"team"}
        for _ in story.scopes:
            story.api.shown["Lease"].put_nowait(None)
        await story.polls()
        assert story.jobs() == {"other"}
        assert story.added == ["bot"], "somebody may remember it"
        assert len([w for w in story.api.watched if w[:2] == ("PyTorchJob", "b")]) == 1
        story.added.clear()
        story.api.forbidden = set()
        await story.until(lambda: story.cache.decides(KEY))
        await story.watches(5)
        assert story.jobs() == {"bot", "other"}
        assert set(story.added) == {"bot"}
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1, "one line a loss"
    assert "namespace team" in warnings[0]


@pytest.mark.parametrize("failure", [Unreachable("away"), ApiError(500, "", "etcd is slow")])
async def test_an_api_server_in_trouble_is_no_reason_to_forget_a_namespace(
    failure: Exception,
) -> None:
    story = Story(("team", "b"))
    async with story.running():
        await story.watches(2)
        story.api.failure, story.api.failures = failure, 3
        for _ in range(2):
            story.api.shown["Lease"].put_nowait(EXPIRED)
        await story.watches(4)
        assert story.jobs() == {"bot", "other"}
        assert story.cache.closed == set()


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


async def test_trouble_with_one_namespace_hides_no_news_of_the_next() -> None:
    story = Story(("team", "b"))
    async with story.running():
        await story.watches(2)
        story.api.broken = {"team"}
        story.world.objects.pop((KIND, "other"))
        for scope in story.scopes:
            story.sync.begin(scope)
        await story.until(lambda: story.jobs() == {"bot"})
        await story.until(lambda: 8 in story.slept)
        assert story.cache.closed == set()


async def test_where_all_namespaces_are_read_a_refusal_closes_none() -> None:
    story = Story()
    async with story.running():
        await story.watches(1)
        story.api.forbidden = {None}  # type: ignore[arg-type]
        story.api.shown["Lease"].put_nowait(None)
        await story.until(lambda: 8 in story.slept)
        assert story.cache.closed == set()
        assert story.jobs() == {"bot", "other"}
        story.api.forbidden = set()
        await story.watches(3)


def labelled(story: Story, namespace: str, team: str) -> None:
    metadata = {"name": namespace, "namespace": "", "labels": {"team": team}}
    story.world.store({"kind": "Namespace", "metadata": {**metadata, "uid": namespace}})


async def test_namespaces_are_chosen_by_their_labels_as_these_change() -> None:
    story = Story(selector="team=ml")
    labelled(story, "team", "ml")
    labelled(story, "b", "web")
    async with story.running():
        await story.synced()
        assert story.jobs() == {"bot"}
        assert story.cache.decides(KEY)
        await story.polls()
        story.added.clear()
        story.api.asked.clear()
        labelled(story, "team", "web")
        labelled(story, "b", "ml")
        await story.until(lambda: story.cache.decides(Key("b", "other")))
        listed = {namespace for kind, namespace, _ in story.api.asked if kind != "Namespace"}
        assert listed == {"b"}
        assert story.jobs() == {"other"}
        assert set(story.added) == {"bot", "other"}
        assert not story.cache.decides(KEY)
        assert story.cache.closed == set()


async def test_nothing_is_taken_in_of_what_is_not_chosen_nor_decided_before_a_list() -> None:
    story = Story(selector="team=ml")
    labelled(story, "b", "ml")
    async with story.running():
        await story.synced()
        assert story.cache.put(story.world.job()) is None
        story.api.broken = {"team"}
        labelled(story, "team", "ml")
        await story.polls()
        assert story.cache.put(story.world.job()) is not None
        assert not story.cache.decides(KEY), "its pods may not be known"
        story.api.broken = set()
        await story.until(lambda: story.cache.decides(KEY))


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

"""Nothing is decided before everything was listed; later lists find what watches missed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Listing, Unreachable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.sync import Synchroniser
from support.operator.backends import ONE_OBJECT
from support.operator.model.api_server import ModelApi
from support.operator.model.world import World, child_kinds

KEY = Key("team", "bot")
KINDS = child_kinds(ONE_OBJECT)


def world() -> World:
    made = World()
    made.add({"kind": KIND, "metadata": {"name": "bot", "namespace": "team"}})
    return made


class Faulty(ModelApi):
    """Fails the first lists; does not serve `missing` kinds; lets nobody read `forbidden`
    namespaces, and breaks down over those that are `broken`."""

    def __init__(self, of: World, failures: int = 0) -> None:
        super().__init__(of, lambda body: None)
        self.failures = failures
        self.failure: Exception = Unreachable("away")
        self.missing: set[str] = set()
        self.forbidden: set[str] = set()
        self.broken: set[str] = set()
        self.asked: list[tuple[str, str | None, str]] = []

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        self.asked.append((kind, namespace, selector))
        if self.failures:
            self.failures -= 1
            raise self.failure
        if kind in self.missing:
            raise ApiError(404, "", "404 page not found")
        if namespace in self.forbidden and kind != "PyTorchJob":
            raise ApiError(403, "Forbidden", "the operator cannot list here")
        if namespace in self.broken:
            raise ApiError(500, "InternalError", "a conversion webhook is away")
        found = await super().list_objects(kind, namespace, selector)
        items = [i for i in found.items if namespace in (None, i["metadata"]["namespace"])]
        return Listing(tuple(items), found.version)


async def test_the_gate_opens_after_the_first_complete_list() -> None:
    cache, added = Cache(), []

    def add(key: Key) -> None:
        added.append((key, cache.synced))

    api = Faulty(world(), failures=2)
    synchroniser = Synchroniser(api, cache, KINDS, (), add, sleep=lambda seconds: asyncio.sleep(0))
    task = asyncio.create_task(synchroniser.run(3600))
    async with asyncio.timeout(10):
        while not cache.synced:  # noqa: ASYNC110 - the condition is the test's
            await asyncio.sleep(0)
    task.cancel()
    assert api.failures == 0
    assert (KEY, True) in added


@pytest.mark.parametrize(
    ("failures", "missing", "relist", "pauses"),
    [
        (0, set(), 300, [30, 300, 300]),
        (0, set(), 10, [10, 10, 10]),
        (2, set(), 300, [1, 1, 30, 300]),
        (0, {"PyTorchJob"}, 300, [3] * 30),
        (0, {"PyTorchJob"}, 2, [2, 2]),
        (0, {KIND}, 300, [1, 1, 1]),
    ],
)
async def test_lists_come_at_once_after_a_failure_soon_after_the_first_then_at_leisure(
    failures: int, missing: set[str], relist: float, pauses: list[float]
) -> None:
    api, slept = Faulty(world(), failures), []
    api.missing = missing

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == len(pauses):
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Synchroniser(api, Cache(), KINDS, (), lambda key: None, sleep=sleep).run(relist)
    assert slept == pauses


async def test_jobs_come_last_so_that_none_seems_childless() -> None:
    api = Faulty(world())
    await Synchroniser(api, Cache(), KINDS, ("a", "b"), lambda key: None).relist()
    assert [kind for kind, _, _ in api.asked].index(KIND) == len(api.asked) // 2 - 1
    assert {namespace for _, namespace, _ in api.asked} == {"a", "b"}
    selectors = {selector for kind, _, selector in api.asked if kind != KIND}
    assert selectors == {"app.kubernetes.io/managed-by=finetune-operator"}


async def test_a_later_list_names_the_jobs_that_changed() -> None:
    made, added = world(), []
    synchroniser = Synchroniser(Faulty(made), Cache(), KINDS, (), added.append)
    await synchroniser.relist()
    added.clear()
    await synchroniser.relist()
    assert added == []
    made.store({**made.job()})
    await synchroniser.relist()
    assert added == [KEY]


class Story:
    """A synchroniser that runs while a script moves its world, one move a pause."""

    def __init__(self, namespaces: tuple[str, ...] = (), selector: str = "") -> None:
        self.world = world()
        self.world.add({"kind": KIND, "metadata": {"name": "other", "namespace": "b"}})
        self.api, self.cache = Faulty(self.world), Cache()
        self.added: list[str] = []
        self.served: list[str] = []
        self.slept: list[float] = []
        self.synchroniser = Synchroniser(
            self.api,
            self.cache,
            KINDS,
            namespaces,
            lambda key: self.added.append(key.name),
            self.served.append,
            selector,
            self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.script:
            raise asyncio.CancelledError
        self.script.pop(0)()

    async def run(self, *script: Callable[[], None]) -> None:
        self.script = list(script)
        with pytest.raises(asyncio.CancelledError):
            await self.synchroniser.run(300)

    def jobs(self) -> set[str]:
        return {key.name for key, _ in self.cache.jobs()}


async def test_a_backend_that_is_served_later_is_told_of_at_once_and_once() -> None:
    story = Story()
    story.api.missing = {"PyTorchJob"}
    await story.run(lambda: None, story.api.missing.clear, lambda: None)
    assert story.served == ["PyTorchJob"]
    assert story.slept == [3, 3, 0, 300]
    assert story.added.count("bot") == 3, "who waits for it need not wait"


async def test_what_the_watches_miss_is_listed_soon_though_lists_are_at_leisure() -> None:
    api, slept, served = Faulty(world()), [], []
    at_leisure = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if seconds == 300:
            at_leisure.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    synchroniser = Synchroniser(
        api, Cache(), KINDS, (), lambda key: None, served.append, sleep=sleep
    )
    task = asyncio.create_task(synchroniser.run(300))
    async with asyncio.timeout(10):
        await at_leisure.wait()
        api.missing = {"PyTorchJob"}
        synchroniser.miss()
        while slept[-2:] != [3, 3]:  # noqa: ASYNC110 - the condition is the test's
            await asyncio.sleep(0)
        api.missing = set()
        while not served:  # noqa: ASYNC110 - the condition is the test's
            await asyncio.sleep(0)
    task.cancel()
    assert slept[:4] == [30, 300, 3, 3]
    assert served == ["PyTorchJob"]


async def test_jobs_of_a_kind_that_is_served_later_are_found_at_once() -> None:
    story = Story()
    story.api.missing = {KIND}

    def check() -> None:
        assert not story.cache.synced, "whoever is ready has seen the jobs"

    await story.run(check, story.api.missing.clear, lambda: None)
    assert story.cache.synced
    assert story.served == [KIND]
    assert set(story.added) == {"bot", "other"}


async def test_a_namespace_that_may_not_be_read_holds_up_no_other() -> None:
    story = Story(("team", "b"))
    story.api.forbidden = {"team"}
    await story.run()
    assert story.cache.synced
    assert story.cache.closed == {"team"}
    assert story.jobs() == {"other"}
    assert story.cache.decides(Key("b", "other"))
    assert not story.cache.decides(Key("team", "bot"))


async def test_a_namespace_that_is_lost_is_forgotten_and_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    story = Story(("team", "b"))

    def lose() -> None:
        story.api.forbidden = {"team"}

    def lost() -> None:
        assert story.jobs() == {"other"}
        assert "bot" in story.added, "somebody may remember it"
        story.added.clear()

    def let() -> None:
        assert story.added == []
        story.api.forbidden = set()

    await story.run(lose, lost, let, lambda: None)
    assert story.slept[:2] == [30, 3]
    assert story.jobs() == {"bot", "other"}
    assert "bot" in story.added
    assert story.cache.decides(KEY)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1, "one line a loss"
    assert "namespace team" in warnings[0]


@pytest.mark.parametrize("failure", [Unreachable("away"), ApiError(500, "", "etcd is slow")])
async def test_an_api_server_in_trouble_is_no_reason_to_forget_a_namespace(
    failure: Exception,
) -> None:
    story = Story(("team", "b"))
    story.api.failure = failure

    def fail() -> None:
        story.api.failures = 1

    await story.run(fail, lambda: None)
    assert story.slept[:2] == [30, 1]
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
        await Synchroniser(Breaks(world()), cache, KINDS, (), added.append).relist()
    assert KEY in cache, "so that neither a watch nor the next list tells it as news"
    assert added == [KEY]


async def test_trouble_with_one_namespace_hides_no_news_of_the_next() -> None:
    story = Story(("team", "b"))

    def something_is_missed() -> None:
        story.api.broken = {"team"}
        story.world.objects.pop((KIND, "other"))

    await story.run(something_is_missed, lambda: None)
    assert story.jobs() == {"bot"}
    assert story.slept[:2] == [30, 1], "it is tried again soon"


async def test_where_all_namespaces_are_read_a_refusal_closes_none() -> None:
    api = Faulty(world())
    api.forbidden = {None}  # type: ignore[arg-type]
    cache = Cache()
    with pytest.raises(ApiError):
        await Synchroniser(api, cache, KINDS, (), lambda key: None).relist()
    assert cache.closed == set()


def labelled(story: Story, namespace: str, team: str) -> None:
    metadata = {"name": namespace, "namespace": "", "labels": {"team": team}}
    story.world.store({"kind": "Namespace", "metadata": {**metadata, "uid": namespace}})


async def test_namespaces_are_chosen_by_their_labels_as_these_change() -> None:
    story = Story(selector="team=ml")
    labelled(story, "team", "ml")
    labelled(story, "b", "web")

    def change() -> None:
        assert story.jobs() == {"bot"}
        assert story.cache.decides(KEY)
        story.added.clear()
        labelled(story, "team", "web")
        labelled(story, "b", "ml")
        story.api.asked.clear()

    def changed() -> None:
        assert {namespace for _, namespace, _ in story.api.asked} == {None, "b"}
        assert story.jobs() == {"other"}
        assert set(story.added) == {"bot", "other"}
        assert not story.cache.decides(KEY)
        assert story.cache.decides(Key("b", "other"))

    await story.run(change, changed)
    assert story.slept[0] == 3
    assert story.cache.closed == set()


async def test_nothing_is_taken_in_of_what_is_not_chosen_nor_decided_before_a_list() -> None:
    story = Story(selector="team=ml")
    labelled(story, "b", "ml")
    await story.run()
    assert story.cache.put(story.world.job()) is None
    story.api.failures = 1
    labelled(story, "team", "ml")
    with pytest.raises(Unreachable):
        await story.synchroniser.relist()
    story.api.failures = 0
    await story.synchroniser._choose()
    assert story.cache.put(story.world.job()) is not None
    assert not story.cache.decides(KEY), "its pods may not be known"
    await story.synchroniser.relist()
    assert story.cache.decides(KEY)


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
    synchroniser = Synchroniser(InPages(made), cache, KINDS, (), lambda key: None)
    for _ in range(2):
        await synchroniser.relist()
        assert {key.name for key, _ in cache.jobs()} == {"bot", "dog", "cat"}
    made.drop(KIND, "dog")
    await synchroniser.relist()
    assert {key.name for key, _ in cache.jobs()} == {"bot", "cat"}

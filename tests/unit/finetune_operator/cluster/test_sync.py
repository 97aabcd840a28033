"""Nothing is decided before everything was listed; later lists find what watches missed."""

import asyncio

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Listing, Unreachable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.sync import BackendAppeared, Synchroniser
from support.operator.backends import ONE_OBJECT
from support.operator.model_cluster import ModelApi
from support.operator.model_world import World, child_kinds

KEY = Key("team", "bot")
KINDS = child_kinds(ONE_OBJECT)


def world() -> World:
    made = World()
    made.add({"kind": KIND, "metadata": {"name": "bot", "namespace": "team"}})
    return made


class Faulty(ModelApi):
    """Fails the first lists; does not serve `missing` kinds."""

    def __init__(self, of: World, failures: int = 0) -> None:
        super().__init__(of, lambda body: None)
        self.failures = failures
        self.missing: set[str] = set()
        self.asked: list[tuple[str, str | None, str]] = []

    async def list_objects(self, kind: str, namespace: str | None, selector: str) -> Listing:
        self.asked.append((kind, namespace, selector))
        if self.failures:
            self.failures -= 1
            raise Unreachable("away")
        if kind in self.missing:
            raise ApiError(404, "", "404 page not found")
        return await super().list_objects(kind, namespace, selector)


async def test_the_gate_opens_after_the_first_complete_list() -> None:
    cache, added = Cache(), []

    def add(key: Key) -> None:
        added.append((key, cache.synced))

    api = Faulty(world(), failures=2)
    synchroniser = Synchroniser(api, cache, KINDS, (), add, lambda seconds: asyncio.sleep(0))
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
        (0, {"PyTorchJob"}, 300, [30, 30, 30]),
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
        await Synchroniser(api, Cache(), KINDS, (), lambda key: None, sleep).run(relist)
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


async def test_a_backend_may_be_missing_and_its_appearance_starts_anew() -> None:
    api = Faulty(world())
    api.missing = {"PyTorchJob"}
    synchroniser = Synchroniser(api, Cache(), KINDS, (), lambda key: None)
    await synchroniser.relist()
    await synchroniser.relist()
    api.missing = set()
    with pytest.raises(BackendAppeared, match="PyTorchJob"):
        await synchroniser.relist()


async def test_finetunejobs_may_not_be_missing() -> None:
    api = Faulty(world())
    api.missing = {KIND}
    with pytest.raises(ApiError):
        await Synchroniser(api, Cache(), KINDS, (), lambda key: None).relist()

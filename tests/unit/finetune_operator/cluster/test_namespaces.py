"""Namespaces are known one by one, by name or by their labels."""

import pytest

from finetune_api.job import KIND
from finetune_operator.cluster.api import ApiError, Unreachable
from finetune_operator.cluster.cache import Key
from support.operator.story import EXPIRED, KEY, Story


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

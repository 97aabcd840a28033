"""Watches: order, resumption, selectors, bookmarks, and the end of history."""

from __future__ import annotations


def seen(event: dict) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"]["name"]


async def test_a_watch_shows_every_write_in_order(api, widgets, widget) -> None:
    start = (await api.get(widgets)).body["metadata"]["resourceVersion"]
    async with api.watch(widgets, resourceVersion=start) as following:
        await api.post(widgets, widget("a"))
        await api.merge(f"{widgets}/a", {"spec": {"size": 2}})
        await api.delete(f"{widgets}/a")
        events = [await following() for _ in range(3)]
    assert [seen(e) for e in events] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(set(versions))
    assert events[2]["object"]["spec"]["size"] == 2


async def test_a_watch_without_a_version_starts_with_what_is_there(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    for version in ({}, {"resourceVersion": "0"}):
        async with api.watch(widgets, **version) as following:
            assert seen(await following()) == ("ADDED", "a")


async def test_a_watch_resumes_after_a_version(api, widgets, widget) -> None:
    first = (await api.post(widgets, widget("a"))).body["metadata"]["resourceVersion"]
    await api.post(widgets, widget("b"))
    await api.delete(f"{widgets}/a")
    async with api.watch(widgets, resourceVersion=first) as following:
        assert [seen(await following()) for _ in range(2)] == [("ADDED", "b"), ("DELETED", "a")]


async def test_a_version_before_history_is_gone(api, widgets) -> None:
    async with api.watch(widgets, resourceVersion="1") as following:
        event = await following()
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert "too old resource version" in event["object"]["message"]


async def test_entering_and_leaving_a_selector(api, widgets, widget) -> None:
    start = (await api.get(widgets)).body["metadata"]["resourceVersion"]
    selector = {"labelSelector": "on=yes", "resourceVersion": start}
    async with api.watch(widgets, **selector) as following:
        await api.post(widgets, widget("a"))
        await api.merge(f"{widgets}/a", {"metadata": {"labels": {"on": "yes"}}})
        await api.merge(f"{widgets}/a", {"spec": {"size": 5}})
        left = await api.merge(f"{widgets}/a", {"metadata": {"labels": None}})
        events = [await following() for _ in range(3)]
    assert [seen(e) for e in events] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    gone = events[2]["object"]
    assert gone["metadata"]["labels"] == {"on": "yes"}
    assert gone["metadata"]["resourceVersion"] == left.body["metadata"]["resourceVersion"]


async def test_watching_one_name(api, widgets, widget) -> None:
    start = (await api.get(widgets)).body["metadata"]["resourceVersion"]
    named = {"fieldSelector": "metadata.name=b", "resourceVersion": start}
    async with api.watch(widgets, **named) as following:
        await api.post(widgets, widget("a"))
        await api.post(widgets, widget("b"))
        assert seen(await following()) == ("ADDED", "b")


async def test_watching_all_namespaces(api, widgets, widget) -> None:
    start = (await api.get(widgets)).body["metadata"]["resourceVersion"]
    everywhere = "/apis/conformance.example.com/v1/widgets"
    async with api.watch(everywhere, resourceVersion=start) as following:
        await api.post(widgets, widget("a"))
        assert seen(await following()) == ("ADDED", "a")


async def test_a_watch_of_one_namespace_shows_no_other(api, widgets, widget) -> None:
    elsewhere = "/apis/conformance.example.com/v1/namespaces/default/widgets"
    start = (await api.get(widgets)).body["metadata"]["resourceVersion"]
    async with api.watch(widgets, resourceVersion=start) as following:
        name = widgets.split("/")[-2]
        assert (await api.post(elsewhere, widget(name))).status == 201
        await api.post(widgets, widget("a"))
        assert seen(await following()) == ("ADDED", "a")
    await api.delete(f"{elsewhere}/{name}")


async def test_a_watch_ends_at_its_time_out(api, widgets) -> None:
    start = (await api.get(widgets)).body["metadata"]["resourceVersion"]
    async with api.watch(widgets, resourceVersion=start, timeoutSeconds="1") as following:
        assert await following() is None


async def test_initial_events_end_with_a_bookmark(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    async with api.watch(
        widgets,
        sendInitialEvents="true",
        allowWatchBookmarks="true",
        resourceVersionMatch="NotOlderThan",
    ) as following:
        assert seen(await following()) == ("ADDED", "a")
        mark = await following()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        version = mark["object"]["metadata"]["resourceVersion"]
        await api.post(widgets, widget("b"))
        added = await following()
    assert seen(added) == ("ADDED", "b")
    assert int(added["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_a_deletion_that_waits_is_a_modification(api, widgets, widget) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    made = (await api.post(widgets, body)).body
    version = made["metadata"]["resourceVersion"]
    async with api.watch(widgets, resourceVersion=version) as following:
        await api.delete(f"{widgets}/a")
        marked = await following()
        assert seen(marked) == ("MODIFIED", "a")
        assert "deletionTimestamp" in marked["object"]["metadata"]
        await api.merge(f"{widgets}/a", {"metadata": {"finalizers": None}})
        assert seen(await following()) == ("DELETED", "a")


async def test_a_write_without_effect_is_not_watched(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    version = made["metadata"]["resourceVersion"]
    async with api.watch(widgets, resourceVersion=version) as following:
        await api.merge(f"{widgets}/a", {"spec": {"size": 1}})
        await api.post(widgets, widget("b"))
        assert seen(await following()) == ("ADDED", "b")

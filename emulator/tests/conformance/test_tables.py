"""Tables: what `kubectl get` prints."""

from __future__ import annotations

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def columns(table: dict) -> list[tuple[str, str, int]]:
    return [(c["name"], c["type"], c["priority"]) for c in table["columnDefinitions"]]


async def test_columns_come_from_the_definition(api, widgets, widget) -> None:
    body = widget("a", size=7)
    body["metadata"]["annotations"] = {"example.com/note": "hello"}
    await api.post(widgets, body)
    ready = [
        {"type": "Other", "status": "True", "reason": "Wrong"},
        {"type": "Ready", "status": "False", "reason": "Cooking"},
    ]
    await api.merge(f"{widgets}/a/status", {"status": {"conditions": ready}})
    await api.post(widgets, widget("b"))
    table = (await api.request("GET", widgets, accept=TABLE)).body
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert columns(table) == [
        ("Name", "string", 0),
        ("State", "string", 0),
        ("Size", "integer", 0),
        ("Note", "string", 1),
        ("Age", "date", 0),
    ]
    assert table["columnDefinitions"][2]["description"] == "How big it is."
    first, second = table["rows"]
    assert first["cells"][:4] == ["a", "Cooking", 7, "hello"]
    assert first["cells"][4].endswith("s")
    assert second["cells"][0] == "b"
    assert second["cells"][1] in (None, "")
    assert first["object"]["kind"] == "PartialObjectMetadata"
    assert first["object"]["metadata"]["name"] == "a"
    assert int(table["metadata"]["resourceVersion"]) > 0


async def test_rows_carry_what_was_asked_for(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    whole = await api.request("GET", widgets, accept=TABLE, includeObject="Object")
    assert whole.body["rows"][0]["object"]["spec"]["size"] == 1
    none = await api.request("GET", widgets, accept=TABLE, includeObject="None")
    assert none.body["rows"][0].get("object") is None
    one = await api.request("GET", f"{widgets}/a", accept=TABLE)
    assert one.body["rows"][0]["cells"][0] == "a"


async def test_a_watch_of_tables(api, widgets, widget) -> None:
    start = (await api.get(widgets)).body["metadata"]["resourceVersion"]
    async with api.watch(widgets, accept=TABLE, resourceVersion=start) as following:
        await api.post(widgets, widget("a"))
        await api.post(widgets, widget("b"))
        first, second = await following(), await following()
    assert (first["type"], first["object"]["kind"]) == ("ADDED", "Table")
    assert first["object"]["rows"][0]["cells"][0] == "a"
    assert first["object"]["columnDefinitions"]
    assert second["object"]["rows"][0]["cells"][0] == "b"
    assert not second["object"]["columnDefinitions"]


async def test_columns_of_builtins(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x.dev/a:1"}]}}
    await api.post(f"{path}/pods", pod)
    table = (await api.request("GET", f"{path}/pods", accept=TABLE)).body
    assert columns(table)[:5] == [
        ("Name", "string", 0),
        ("Ready", "string", 0),
        ("Status", "string", 0),
        ("Restarts", "string", 0),
        ("Age", "string", 0),
    ]
    assert ("Node", "string", 1) in columns(table)
    assert table["rows"][0]["cells"][:4] == ["p", "0/1", "Pending", "0"]
    await api.delete(f"{path}/pods/p")
    events = (await api.request("GET", f"{path}/events", accept=TABLE)).body
    shown = [name for name, _, priority in columns(events) if priority == 0]
    assert shown == ["Last Seen", "Type", "Reason", "Object", "Message"]


async def test_metadata_alone(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    found = (await api.request("GET", widgets, accept=accept)).body
    assert found["kind"] == "PartialObjectMetadataList"
    assert found["items"][0]["metadata"]["name"] == "a"
    assert "spec" not in found["items"][0]
    one = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    assert (await api.request("GET", f"{widgets}/a", accept=one)).body["metadata"]["name"] == "a"


async def test_forms_nobody_speaks_are_not_acceptable(api, widgets) -> None:
    answer = await api.request("GET", widgets, accept="text/html")
    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")

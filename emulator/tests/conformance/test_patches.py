"""JSON patch, merge patch, strategic merge patch."""

from __future__ import annotations

POD = {
    "metadata": {"name": "p", "labels": {"a": "1"}},
    "spec": {
        "containers": [
            {"name": "one", "image": "example.com/one:1", "env": [{"name": "A", "value": "1"}]},
            {"name": "two", "image": "example.com/two:1"},
        ]
    },
}


async def test_merge_patch_merges_maps_and_replaces_lists(api, widgets, widget) -> None:
    await api.post(widgets, widget("a", steps=["x", "y"], labels={"k": "1", "l": "2"}))
    body = {"spec": {"steps": ["z"], "labels": {"k": None, "m": "3"}, "limit": 9}}
    patched = (await api.merge(f"{widgets}/a", body)).body["spec"]
    assert patched["steps"] == ["z"]
    assert patched["labels"] == {"l": "2", "m": "3"}
    assert (patched["size"], patched["limit"]) == (1, 9)


async def test_json_patch_applies_in_order(api, widgets, widget) -> None:
    await api.post(widgets, widget("a", steps=["x"]))
    body = [
        {"op": "test", "path": "/spec/size", "value": 1},
        {"op": "replace", "path": "/spec/size", "value": 2},
        {"op": "add", "path": "/spec/steps/-", "value": "y"},
        {"op": "add", "path": "/spec/steps/0", "value": "w"},
        {"op": "copy", "from": "/spec/size", "path": "/spec/limit"},
    ]
    patched = (await api.json_patch(f"{widgets}/a", body)).body["spec"]
    assert patched["steps"] == ["w", "x", "y"]
    assert (patched["size"], patched["limit"]) == (2, 2)
    removed = await api.json_patch(f"{widgets}/a", [{"op": "remove", "path": "/spec/limit"}])
    assert "limit" not in removed.body["spec"]


async def test_json_patch_replaces_what_is_not_there(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    body = [{"op": "replace", "path": "/spec/limit", "value": 7}]
    assert (await api.json_patch(f"{widgets}/a", body)).body["spec"]["limit"] == 7


async def test_json_patches_that_do_not_apply(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    for operation in (
        {"op": "test", "path": "/spec/size", "value": 7},
        {"op": "remove", "path": "/spec/limit"},
        {"op": "add", "path": "/spec/nothing/here", "value": 1},
        {"op": "zap", "path": "/spec/size"},
    ):
        refused = await api.json_patch(f"{widgets}/a", [operation])
        assert (refused.status, refused.body["reason"]) == (422, "Invalid"), operation
    assert (await api.json_patch(f"{widgets}/a", {"op": "test"})).status == 400
    assert (await api.get(f"{widgets}/a")).body == made


async def test_patches_may_carry_a_version(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    version = made["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version}, "spec": {"size": 2}}
    assert (await api.merge(f"{widgets}/a", body)).status == 200
    stale = await api.merge(f"{widgets}/a", {**body, "spec": {"size": 3}})
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    operations = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        {"op": "replace", "path": "/spec/size", "value": 3},
    ]
    assert (await api.json_patch(f"{widgets}/a", operations)).status == 409


async def test_patches_cannot_change_identity(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    renamed = await api.merge(f"{widgets}/a", {"metadata": {"name": "b"}})
    assert renamed.status == 400
    uid = await api.merge(f"{widgets}/a", {"metadata": {"uid": "other"}})
    assert uid.status == 422
    assert uid.body["details"]["causes"][0]["field"] == "metadata.uid"
    when = {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 77}}
    await api.merge(f"{widgets}/a", when)
    assert (await api.get(f"{widgets}/a")).body["metadata"]["generation"] == 1
    stored = (await api.get(f"{widgets}/a")).body["metadata"]["creationTimestamp"]
    assert stored == made["metadata"]["creationTimestamp"]


async def test_unknown_fields_in_a_strict_patch(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    refused = await api.merge(f"{widgets}/a", {"spec": {"x": 1}}, fieldValidation="Strict")
    assert refused.status == 422
    assert 'strict decoding error: unknown field "spec.x"' in refused.body["message"]
    assert refused.body["details"]["causes"][0]["field"] == "patch"
    warned = await api.merge(f"{widgets}/a", {"spec": {"x": 1}})
    assert warned.warnings == ['unknown field \\"spec.x\\"']
    assert "x" not in warned.body["spec"]


async def test_strategic_merge_is_for_builtins_only(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    refused = await api.strategic(f"{widgets}/a", {"spec": {"size": 2}})
    assert (refused.status, refused.body["reason"]) == (415, "UnsupportedMediaType")
    assert "application/merge-patch+json" in refused.body["message"]
    other = await api.request("PATCH", f"{widgets}/a", {}, content="application/json")
    assert other.status == 415


async def test_strategic_merge_matches_list_items_by_key(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    made = await api.post(path, POD)
    assert made.status == 201, made.body
    change = {"spec": {"containers": [{"name": "two", "image": "example.com/two:2"}]}}
    patched = (await api.strategic(f"{path}/p", change)).body["spec"]["containers"]
    assert [(c["name"], c["image"]) for c in patched] == [
        ("one", "example.com/one:1"),
        ("two", "example.com/two:2"),
    ]


async def test_strategic_merge_directives(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}, {"name": "c", "port": 3}]
    body = {"metadata": {"name": "s", "finalizers": ["e.com/a", "e.com/b"]}, "spec": {}}
    body["spec"] = {"clusterIP": "None", "ports": ports, "selector": {"x": "1", "y": "2"}}
    assert (await api.post(path, body)).status == 201
    change = {
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["e.com/a"]},
        "spec": {
            "$setElementOrder/ports": [{"port": 3}, {"port": 2}],
            "ports": [{"port": 1, "$patch": "delete"}, {"port": 3, "name": "third"}],
            "selector": {"$patch": "replace", "z": "3"},
        },
    }
    patched = await api.strategic(f"{path}/s", change)
    assert patched.status == 200, patched.body
    assert [(p["name"], p["port"]) for p in patched.body["spec"]["ports"]] == [
        ("third", 3),
        ("b", 2),
    ]
    assert patched.body["spec"]["selector"] == {"z": "3"}
    assert patched.body["metadata"]["finalizers"] == ["e.com/b"]
    await api.merge(f"{path}/s", {"metadata": {"finalizers": None}})


async def test_patching_what_is_not_there(api, widgets) -> None:
    assert (await api.merge(f"{widgets}/none", {"spec": {}})).status == 404

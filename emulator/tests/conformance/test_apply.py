"""Server-side apply: ownership, conflicts, removal, and what updates do to it."""

from __future__ import annotations

import pytest


def owners(obj: dict) -> dict[tuple[str, str, str], dict]:
    return {
        (e["manager"], e["operation"], e.get("subresource", "")): e["fieldsV1"]
        for e in obj["metadata"].get("managedFields", [])
    }


def config_map(**data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


async def test_apply_creates_and_then_changes(api, widgets, widget) -> None:
    made = await api.apply(f"{widgets}/a", widget("a"), "one")
    assert made.status == 201
    assert made.body["spec"]["color"] == "Red"
    assert owners(made.body) == {("one", "Apply", ""): {"f:spec": {"f:size": {}}}}
    changed = await api.apply(f"{widgets}/a", widget("a", size=2), "one")
    assert changed.status == 200
    assert changed.body["spec"]["size"] == 2
    assert changed.body["metadata"]["generation"] == 2


async def test_apply_without_effect_is_no_write(api, widgets, widget) -> None:
    made = (await api.apply(f"{widgets}/a", widget("a"), "one")).body
    again = (await api.apply(f"{widgets}/a", widget("a"), "one")).body
    assert again == made


async def test_a_conflict_names_manager_and_field(api, maps) -> None:
    await api.apply(f"{maps}/m", config_map(a="1", b="1"), "one")
    refused = await api.apply(f"{maps}/m", config_map(a="2"), "two")
    assert (refused.status, refused.body["reason"]) == (409, "Conflict")
    assert refused.body["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert refused.body["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "one"',
            "field": ".data.a",
        }
    ]
    several = await api.apply(f"{maps}/m", config_map(a="2", b="2"), "two")
    assert several.body["message"] == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    )
    assert (await api.get(f"{maps}/m")).body["data"] == {"a": "1", "b": "1"}


async def test_force_takes_over(api, maps) -> None:
    await api.apply(f"{maps}/m", config_map(a="1", b="1"), "one")
    forced = await api.apply(f"{maps}/m", config_map(a="2"), "two", force="true")
    assert forced.body["data"] == {"a": "2", "b": "1"}
    assert owners(forced.body) == {
        ("one", "Apply", ""): {"f:data": {"f:b": {}}},
        ("two", "Apply", ""): {"f:data": {"f:a": {}}},
    }


async def test_equal_values_are_shared(api, maps) -> None:
    await api.apply(f"{maps}/m", config_map(a="1"), "one")
    shared = await api.apply(f"{maps}/m", config_map(a="1"), "two")
    assert shared.status == 200
    assert set(owners(shared.body)) == {("one", "Apply", ""), ("two", "Apply", "")}
    dropped = await api.apply(f"{maps}/m", config_map(), "one")
    assert dropped.body["data"] == {"a": "1"}
    last = await api.apply(f"{maps}/m", config_map(), "two")
    assert "data" not in last.body


async def test_what_is_no_longer_applied_is_removed(api, widgets, widget) -> None:
    await api.apply(f"{widgets}/a", widget("a", limit=5, labels={"x": "1", "y": "2"}), "one")
    await api.merge(f"{widgets}/a", {"spec": {"labels": {"z": "3"}}}, fieldManager="other")
    less = await api.apply(f"{widgets}/a", widget("a", labels={"x": "1"}), "one")
    assert "limit" not in less.body["spec"]
    assert less.body["spec"]["labels"] == {"x": "1", "z": "3"}


async def test_defaults_come_back_when_no_longer_applied(api, widgets, widget) -> None:
    await api.apply(f"{widgets}/a", widget("a", options={"depth": 9}), "one")
    less = await api.apply(f"{widgets}/a", widget("a"), "one")
    assert less.body["spec"]["options"]["depth"] == 3


async def test_an_update_takes_fields_and_conflicts_with_apply(api, maps) -> None:
    await api.apply(f"{maps}/m", config_map(a="1", b="1"), "one")
    updated = await api.merge(f"{maps}/m", {"data": {"a": "2"}}, fieldManager="editor")
    assert owners(updated.body) == {
        ("one", "Apply", ""): {"f:data": {"f:b": {}}},
        ("editor", "Update", ""): {"f:data": {"f:a": {}}},
    }
    refused = await api.apply(f"{maps}/m", config_map(a="1", b="1"), "one")
    assert refused.status == 409
    assert 'conflict with "editor" using v1' in refused.body["message"]


async def test_the_manager_of_an_update_is_its_user_agent(api, maps) -> None:
    made = await api.post(maps, config_map(a="1"))
    assert owners(made.body) == {("conformance", "Update", ""): {"f:data": {".": {}, "f:a": {}}}}


async def test_map_lists_are_merged_by_their_keys(api, widgets, widget) -> None:
    mine = [{"name": "a", "number": 1}, {"name": "b", "number": 2}]
    await api.apply(f"{widgets}/w", widget("w", ports=mine), "one")
    theirs = {**widget("w"), "spec": {"size": 1, "ports": [{"name": "c", "number": 3}]}}
    both = await api.apply(f"{widgets}/w", theirs, "two")
    assert both.status == 200, both.body
    assert [p["name"] for p in both.body["spec"]["ports"]] == ["a", "b", "c"]
    assert owners(both.body)["two", "Apply", ""]["f:spec"]["f:ports"] == {
        'k:{"name":"c"}': {".": {}, "f:name": {}, "f:number": {}}
    }
    taken = {**widget("w"), "spec": {"size": 1, "ports": [{"name": "a", "number": 9}]}}
    refused = await api.apply(f"{widgets}/w", taken, "two")
    assert refused.body["details"]["causes"][0]["field"] == '.spec.ports[name="a"].number'
    fewer = await api.apply(f"{widgets}/w", widget("w", ports=mine[1:]), "one")
    assert [p["name"] for p in fewer.body["spec"]["ports"]] == ["b", "c"]


async def test_sets_are_united_and_atomic_lists_replaced(api, widgets, widget) -> None:
    await api.apply(f"{widgets}/w", widget("w", tags=["a", "b"], steps=["x"]), "one")
    united = await api.apply(f"{widgets}/w", widget("w", tags=["b", "c"]), "two")
    assert united.body["spec"]["tags"] == ["a", "b", "c"]
    assert owners(united.body)["two", "Apply", ""]["f:spec"]["f:tags"] == {
        'v:"b"': {},
        'v:"c"': {},
    }
    less = await api.apply(f"{widgets}/w", widget("w", tags=["a"], steps=["x"]), "one")
    assert less.body["spec"]["tags"] == ["a", "b", "c"]
    conflict = await api.apply(f"{widgets}/w", widget("w", steps=["y"]), "two")
    assert conflict.body["details"]["causes"][0]["field"] == ".spec.steps"


async def test_builtin_lists_have_their_keys(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods/p"
    container = {"name": "c", "image": "example.com/a:1", "ports": [{"containerPort": 80}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    made = await api.apply(path, {**pod, "spec": {"containers": [container]}}, "one")
    assert made.status == 201, made.body
    assert owners(made.body)["one", "Apply", ""] == {
        "f:spec": {
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:name": {},
                    "f:image": {},
                    "f:ports": {
                        'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                    },
                }
            }
        }
    }
    newer = {**pod, "spec": {"containers": [{"name": "c", "image": "example.com/a:2"}]}}
    refused = await api.apply(path, newer, "two")
    assert refused.body["details"]["causes"][0]["field"] == '.spec.containers[name="c"].image'


async def test_status_is_owned_apart(api, widgets, widget) -> None:
    await api.apply(f"{widgets}/a", widget("a"), "one")
    status = {**widget("a", size=50), "status": {"count": 1}}
    applied = await api.apply(f"{widgets}/a/status", status, "one")
    assert applied.status == 200, applied.body
    assert applied.body["status"] == {"count": 1}
    assert applied.body["spec"]["size"] == 1
    assert owners(applied.body) == {
        ("one", "Apply", ""): {"f:spec": {"f:size": {}}},
        ("one", "Apply", "status"): {"f:status": {"f:count": {}}},
    }
    refused = await api.apply(f"{widgets}/a/status", {**widget("a"), "status": {"count": 2}}, "two")
    assert '"one" with subresource "status"' in refused.body["message"]
    assert (await api.apply(f"{widgets}/none/status", widget("none"), "one")).status == 404


async def test_apply_requests_that_are_refused(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    media = "application/apply-patch+yaml"
    unnamed = await api.request("PATCH", f"{widgets}/a", widget("a"), media)
    assert unnamed.status == 422
    assert "fieldManager: Required value: is required for apply patch" in unnamed.body["message"]
    managed = widget("a")
    managed["metadata"]["managedFields"] = [{"manager": "x"}]
    refused = await api.apply(f"{widgets}/a", managed, "one")
    assert (refused.status, refused.body["message"]) == (
        400,
        "metadata.managedFields must be nil",
    )
    assert (await api.apply(f"{widgets}/a", widget("b"), "one")).status == 400
    unknown = await api.apply(f"{widgets}/a", widget("a", x=1), "one")
    assert unknown.status == 500
    assert ".spec.x: field not declared in schema" in unknown.body["message"]
    invalid = await api.apply(f"{widgets}/a", widget("a", size=0), "conformance", force="true")
    assert invalid.status == 422
    untyped = await api.apply(f"{widgets}/a", {"metadata": {"name": "a"}}, "one")
    assert untyped.status == 400


async def test_apply_with_a_stale_version_conflicts(api, widgets, widget) -> None:
    made = (await api.apply(f"{widgets}/a", widget("a"), "one")).body
    await api.merge(f"{widgets}/a", {"metadata": {"labels": {"x": "y"}}})
    body = widget("a", size=2)
    body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    refused = await api.apply(f"{widgets}/a", body, "one")
    assert (refused.status, refused.body["reason"]) == (409, "Conflict")


async def test_apply_does_not_revive_another_uid(api, widgets, widget) -> None:
    body = widget("a")
    body["metadata"]["uid"] = "7c7cbe07-2b4c-4a9f-9a0f-6f4d2a8f3f0e"
    refused = await api.apply(f"{widgets}/a", body, "one")
    assert (refused.status, refused.body["reason"]) == (409, "Conflict")
    assert (await api.get(f"{widgets}/a")).status == 404


async def test_a_dry_run_of_apply_shows_and_stores_nothing(api, widgets, widget) -> None:
    tried = await api.apply(f"{widgets}/a", widget("a"), "one", dryRun="All")
    assert tried.status == 201
    assert (await api.get(f"{widgets}/a")).status == 404


async def test_a_manager_that_owns_nothing_is_forgotten(api, widgets, widget) -> None:
    await api.apply(f"{widgets}/a", widget("a"), "one")
    await api.merge(f"{widgets}/a", {"spec": {"limit": 4}}, fieldManager="editor")
    await api.merge(f"{widgets}/a", {"spec": {"limit": None}}, fieldManager="other")
    assert set(owners((await api.get(f"{widgets}/a")).body)) == {("one", "Apply", "")}


async def test_labels_and_references_are_owned(api, maps) -> None:
    owner = (await api.post(maps, {"metadata": {"name": "o"}})).body
    body = config_map()
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o"}
    reference["uid"] = owner["metadata"]["uid"]
    body["metadata"] |= {"labels": {"a": "b"}, "ownerReferences": [reference]}
    made = (await api.apply(f"{maps}/m", body, "one")).body
    uid = owner["metadata"]["uid"]
    assert owners(made)["one", "Apply", ""] == {
        "f:metadata": {
            "f:labels": {"f:a": {}},
            "f:ownerReferences": {f'k:{{"uid":"{uid}"}}': {}},
        }
    } or owners(made)["one", "Apply", ""]["f:metadata"]["f:labels"] == {"f:a": {}}

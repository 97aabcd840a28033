"""Create, read, replace, list, and delete; versions, names, options."""

from __future__ import annotations


def config_map(name: str, **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_create_fills_in_what_the_server_owns(api, widgets, widget, namespace) -> None:
    body = widget("a")
    body["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}
    made = await api.post(widgets, body)
    assert made.status == 201
    meta = made.body["metadata"]
    assert meta["namespace"] == namespace
    assert meta["uid"] != "mine"
    assert meta["generation"] == 1
    assert meta["creationTimestamp"].startswith("20")
    assert not meta["creationTimestamp"].startswith("2001")
    assert int(meta["resourceVersion"]) > 0
    assert (await api.get(f"{widgets}/a")).body == made.body


async def test_a_second_create_is_refused(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    again = await api.post(widgets, widget("a"))
    assert (again.status, again.body["reason"]) == (409, "AlreadyExists")
    assert again.body["message"] == 'widgets.conformance.example.com "a" already exists'
    assert again.body["details"] == {
        "name": "a",
        "group": "conformance.example.com",
        "kind": "widgets",
    }


async def test_what_is_not_there_is_not_found(api, widgets, namespace) -> None:
    missing = await api.get(f"{widgets}/none")
    assert (missing.status, missing.body["reason"]) == (404, "NotFound")
    assert missing.body["message"] == 'widgets.conformance.example.com "none" not found'
    core = await api.get(f"/api/v1/namespaces/{namespace}/pods/none")
    assert core.body["message"] == 'pods "none" not found'
    assert core.body["details"] == {"name": "none", "kind": "pods"}


async def test_a_missing_namespace_is_not_found(api) -> None:
    path = "/api/v1/namespaces/nowhere-at-all/configmaps"
    made = await api.post(path, config_map("a"))
    assert made.status == 404
    assert made.body["message"] == 'namespaces "nowhere-at-all" not found'


async def test_unknown_paths_are_not_found(api, namespace) -> None:
    for path in ("/apis/nothing.dev/v1/things", f"/api/v1/namespaces/{namespace}/things"):
        answer = await api.get(path)
        assert answer.status == 404
        assert "could not find the requested resource" in str(answer.body) or answer.body


async def test_generate_name_appends_five_characters(api, widgets, widget) -> None:
    body = widget("")
    body["metadata"] = {"generateName": "gen-"}
    first, second = await api.post(widgets, body), await api.post(widgets, body)
    names = {first.body["metadata"]["name"], second.body["metadata"]["name"]}
    assert len(names) == 2
    assert all(n.startswith("gen-") and len(n) == 9 for n in names)
    assert first.body["metadata"]["generateName"] == "gen-"


async def test_names_are_checked(api, widgets, widget) -> None:
    bad = await api.post(widgets, widget("Not_A_Name"))
    assert (bad.status, bad.body["reason"]) == (422, "Invalid")
    cause = bad.body["details"]["causes"][0]
    assert cause["field"] == "metadata.name"
    assert "lowercase RFC 1123 subdomain" in cause["message"]
    none = widget("x")
    del none["metadata"]["name"]
    refused = await api.post(widgets, none)
    assert refused.status == 422
    assert "name or generateName is required" in refused.body["message"]


async def test_labels_are_checked(api, widgets, widget) -> None:
    body = widget("a")
    body["metadata"]["labels"] = {"a": "not a label"}
    refused = await api.post(widgets, body)
    assert refused.status == 422
    assert refused.body["details"]["causes"][0]["field"] == "metadata.labels"
    body["metadata"]["labels"] = {"a": 7}
    assert (await api.post(widgets, body)).status == 400


async def test_the_body_must_match_the_path(api, widgets, widget) -> None:
    body = widget("a")
    body["metadata"]["namespace"] = "elsewhere"
    refused = await api.post(widgets, body)
    assert refused.status == 400
    assert "does not match the namespace" in refused.body["message"]
    await api.post(widgets, widget("b"))
    renamed = await api.put(f"{widgets}/b", widget("c"))
    assert renamed.status == 400
    assert "does not match the name on the URL" in renamed.body["message"]
    wrong = await api.post(widgets, {**widget("d"), "kind": "Gadget"})
    assert wrong.status == 422
    assert (
        wrong.body["details"]["causes"][0]["message"] == 'Invalid value: "Gadget": must be Widget'
    )
    older = {**widget("d"), "apiVersion": "conformance.example.com/v0"}
    assert (await api.post(widgets, older)).status == 400


async def test_replace_needs_the_stored_version(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    unversioned = await api.put(f"{widgets}/a", widget("a", size=2))
    assert unversioned.status == 422
    assert "must be specified for an update" in unversioned.body["message"]
    changed = await api.put(f"{widgets}/a", {**made, "spec": {"size": 2}})
    assert changed.status == 200
    assert changed.body["metadata"]["generation"] == 2
    assert int(changed.body["metadata"]["resourceVersion"]) > int(
        made["metadata"]["resourceVersion"]
    )
    stale = await api.put(f"{widgets}/a", {**made, "spec": {"size": 3}})
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in stale.body["message"]
    assert (await api.get(f"{widgets}/a")).body["spec"]["size"] == 2


async def test_replace_refuses_another_objects_uid(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    made["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    refused = await api.put(f"{widgets}/a", made)
    assert refused.status == 409
    assert "Precondition failed: UID in precondition" in refused.body["message"]


async def test_some_builtins_may_be_replaced_without_a_version(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    await api.post(path, config_map("a", x="1"))
    changed = await api.put(f"{path}/a", config_map("a", x="2"))
    assert changed.status == 200
    assert changed.body["data"] == {"x": "2"}
    assert "generation" not in changed.body["metadata"]


async def test_a_write_that_changes_nothing_is_no_write(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    same = await api.put(f"{widgets}/a", made)
    patched = await api.merge(f"{widgets}/a", {"spec": {"size": 1}})
    for answer in (same, patched):
        assert answer.status == 200
        assert answer.body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_metadata_changes_keep_the_generation(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    labelled = await api.merge(f"{widgets}/a", {"metadata": {"labels": {"x": "y"}}})
    assert labelled.body["metadata"]["generation"] == 1
    assert labelled.body["metadata"]["labels"] == {"x": "y"}


async def test_dry_run_stores_nothing(api, widgets, widget) -> None:
    tried = await api.post(widgets, widget("a"), dryRun="All")
    assert tried.status == 201
    assert tried.body["spec"]["color"] == "Red"
    assert (await api.get(f"{widgets}/a")).status == 404
    made = (await api.post(widgets, widget("a"))).body
    patched = await api.merge(f"{widgets}/a", {"spec": {"size": 9}}, dryRun="All")
    assert patched.body["spec"]["size"] == 9
    deleted = await api.delete(f"{widgets}/a", dryRun="All")
    assert deleted.status == 200
    assert (await api.get(f"{widgets}/a")).body == made
    assert (await api.post(widgets, widget("b"), dryRun="Some")).status in (400, 422)


async def test_unknown_fields_are_refused_warned_about_or_dropped(api, widgets, widget) -> None:
    body = widget("a", colour="Red")
    strict = await api.post(widgets, body, fieldValidation="Strict")
    assert (strict.status, strict.body["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.colour"' in strict.body["message"]
    warned = await api.post(widgets, body, fieldValidation="Warn")
    assert warned.status == 201
    assert warned.warnings == ['unknown field \\"spec.colour\\"']
    assert "colour" not in warned.body["spec"]
    quiet = await api.post(widgets, {**body, "metadata": {"name": "b"}}, fieldValidation="Ignore")
    assert (quiet.status, quiet.warnings) == (201, [])


async def test_unknown_fields_of_builtins_and_metadata(api, namespace, widgets, widget) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body = {**config_map("a"), "date": {}}
    strict = await api.post(path, body, fieldValidation="Strict")
    assert strict.status == 400
    assert 'strict decoding error: unknown field "date"' in strict.body["message"]
    made = widget("a")
    made["metadata"]["lables"] = {}
    strict = await api.post(widgets, made, fieldValidation="Strict")
    assert strict.status == 400
    assert 'unknown field "metadata.lables"' in strict.body["message"]


async def test_wrong_types_of_builtins_are_bad_requests(api, namespace) -> None:
    body = config_map("a")
    body["data"] = {"x": 1}
    refused = await api.post(f"/api/v1/namespaces/{namespace}/configmaps", body)
    assert (refused.status, refused.body["reason"]) == (400, "BadRequest")
    assert 'ConfigMap in version "v1" cannot be handled as a ConfigMap' in refused.body["message"]


async def test_list_selects_by_labels(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for name, labels in (("a", {"k": "1"}), ("b", {"k": "2", "l": "x"}), ("c", {})):
        body = config_map(name)
        body["metadata"]["labels"] = labels
        await api.post(path, body)
    cases = {
        "k=1": ["a"],
        "k==2,l=x": ["b"],
        "k": ["a", "b"],
        "!k": ["c", "kube-root-ca.crt"],
        "k!=1": ["b", "c", "kube-root-ca.crt"],
        "k in (1,2)": ["a", "b"],
        "k notin (1)": ["b", "c", "kube-root-ca.crt"],
    }
    for selector, names in cases.items():
        found = (await api.get(path, labelSelector=selector)).body["items"]
        listed = [o["metadata"]["name"] for o in found]
        expected = [n for n in names if n in listed or n != "kube-root-ca.crt"]
        assert listed == expected, selector
    assert (await api.get(path, labelSelector="k=(")).status == 400


async def test_list_selects_by_fields(api, namespace, widgets) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    await api.post(path, config_map("a"))
    await api.post(path, config_map("b"))
    one = (await api.get(path, fieldSelector="metadata.name=a")).body["items"]
    assert [o["metadata"]["name"] for o in one] == ["a"]
    rest = (await api.get(path, fieldSelector="metadata.name!=a")).body["items"]
    assert "a" not in [o["metadata"]["name"] for o in rest]
    refused = await api.get(path, fieldSelector="data.x=1")
    assert refused.status == 400
    assert '"data.x" is not a known field selector' in refused.body["message"]
    custom = await api.get(widgets, fieldSelector="spec.size=1")
    assert custom.status == 400
    assert custom.body["message"] == "field label not supported: spec.size"


async def test_lists_are_sorted_and_leave_out_kinds_of_namespaces(api, widgets, widget) -> None:
    for name in ("b", "a", "c"):
        await api.post(widgets, widget(name))
    found = (await api.get(widgets)).body
    assert (found["kind"], found["apiVersion"]) == ("WidgetList", "conformance.example.com/v1")
    assert [o["metadata"]["name"] for o in found["items"]] == ["a", "b", "c"]
    assert int(found["metadata"]["resourceVersion"]) >= max(
        int(o["metadata"]["resourceVersion"]) for o in found["items"]
    )


async def test_pages_show_one_moment(api, widgets, widget) -> None:
    for i in range(5):
        await api.post(widgets, widget(f"w{i}"))
    first = (await api.get(widgets, limit="2")).body
    assert [o["metadata"]["name"] for o in first["items"]] == ["w0", "w1"]
    assert first["metadata"]["remainingItemCount"] == 3
    await api.delete(f"{widgets}/w4")
    token = first["metadata"]["continue"]
    second = (await api.get(widgets, **{"limit": "9", "continue": token})).body
    assert [o["metadata"]["name"] for o in second["items"]] == ["w2", "w3", "w4"]
    assert not second["metadata"].get("continue")
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_selected_pages_do_not_say_how_many_remain(api, widgets, widget) -> None:
    for i in range(3):
        body = widget(f"w{i}")
        body["metadata"]["labels"] = {"a": "b"}
        await api.post(widgets, body)
    first = (await api.get(widgets, limit="2", labelSelector="a=b")).body["metadata"]
    assert first["continue"]
    assert "remainingItemCount" not in first


async def test_fields_that_stand_twice(api, widgets) -> None:
    text = """{"apiVersion": "conformance.example.com/v1", "kind": "Widget",
        "metadata": {"name": "a"}, "spec": {"size": 1, "size": 2}}"""
    strict = await api.send("POST", widgets, text, fieldValidation="Strict")
    assert strict.status == 400
    assert 'strict decoding error: duplicate field "spec.size"' in strict.body["message"]
    warned = await api.send("POST", widgets, text)
    assert warned.status == 201
    assert warned.warnings == ['duplicate field \\"spec.size\\"']
    assert warned.body["spec"]["size"] == 2


async def test_methods_that_make_no_sense_are_refused(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert (await api.request("PUT", path, {})).status == 405
    assert (await api.request("POST", f"{path}/a", {})).status == 405


async def test_malformed_bodies_are_bad_requests(api, widgets) -> None:
    assert (await api.request("POST", widgets, "text")).status == 400
    odd = await api.request("POST", widgets, {}, content="text/plain")
    assert odd.status == 415

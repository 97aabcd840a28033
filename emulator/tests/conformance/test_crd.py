"""Custom resources: pruning, defaults, schema and CEL validation, the status subresource."""

from __future__ import annotations

import pytest


def causes(answer) -> list[tuple[str, str]]:
    assert (answer.status, answer.body["reason"]) == (422, "Invalid"), answer.body
    return [(c["field"], c["message"]) for c in answer.body["details"]["causes"]]


async def test_defaults_are_filled_in_at_every_depth(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a", ports=[{"name": "x"}]))).body["spec"]
    assert made["color"] == "Red"
    assert made["options"] == {"depth": 3, "mode": "Fast"}
    assert made["ports"] == [{"name": "x", "number": 80}]
    given = (await api.post(widgets, widget("b", options={"depth": 5}))).body["spec"]
    assert given["options"] == {"depth": 5, "mode": "Fast"}


async def test_nulls_are_dropped_unless_allowed(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a", color=None, limit=None, nickname=None))).body
    assert made["spec"]["color"] == "Red"
    assert "limit" not in made["spec"]
    assert made["spec"]["nickname"] is None


async def test_unknown_fields_are_pruned_at_every_depth(api, widgets, widget) -> None:
    body = {**widget("a", x=1, ports=[{"name": "p", "y": 2}]), "z": 3}
    made = (await api.post(widgets, body)).body
    assert "z" not in made
    assert "x" not in made["spec"]
    assert made["spec"]["ports"] == [{"name": "p", "number": 80}]


async def test_preserved_fields_and_free_maps_stay(api, widgets, widget) -> None:
    extra = {"deep": {"er": [1, {"x": None}]}}
    made = (await api.post(widgets, widget("a", extra=extra, labels={"k": "v"}))).body["spec"]
    assert made["extra"] == extra
    assert made["labels"] == {"k": "v"}


@pytest.mark.parametrize("zone", [1, "one"])
async def test_int_or_string_takes_both(api, widgets, widget, zone) -> None:
    assert (await api.post(widgets, widget("a", zone=zone))).body["spec"]["zone"] == zone


async def test_int_or_string_takes_nothing_else(api, widgets, widget) -> None:
    refused = causes(await api.post(widgets, widget("a", zone=[1])))
    assert refused[0][0] == "spec.zone"


SCHEMA_CASES = {
    "type": ({"size": "1"}, "spec.size", "spec.size in body must be of type integer"),
    "float": ({"size": 1.5}, "spec.size", "spec.size in body must be of type integer"),
    "minimum": ({"size": 0}, "spec.size", "should be greater than or equal to 1"),
    "maximum": ({"size": 101}, "spec.size", "should be less than or equal to 100"),
    "enum": ({"color": "Green"}, "spec.color", 'supported values: "Red", "Blue"'),
    "pattern": ({"rate": "x"}, "spec.rate", "spec.rate in body should match '^[0-9.]+$'"),
    "maxLength": ({"rate": "123456789"}, "spec.rate", "Too long: may not be more than 8 bytes"),
    "maxItems": ({"steps": list("abcde")}, "spec.steps", "Too many: 5: must have at most 4 items"),
    "maxProperties": (
        {"labels": dict.fromkeys("abcde", "x")},
        "spec.labels",
        "Too many: 5: must have at most 4 items",
    ),
    "map value": ({"labels": {"a": 1}}, "spec.labels.a", "must be of type string"),
    "item": ({"ports": [{"number": 1}]}, "spec.ports[0].name", "Required value"),
    "set": ({"tags": ["a", "a"]}, "spec.tags[1]", 'Duplicate value: "a"'),
    "map": ({"ports": [{"name": "a"}] * 2}, "spec.ports[1]", "Duplicate value: "),
}


@pytest.mark.parametrize("case", SCHEMA_CASES)
async def test_the_schema_is_enforced(api, widgets, widget, case) -> None:
    spec, field, text = SCHEMA_CASES[case]
    found = causes(await api.post(widgets, widget("a", **spec)))
    assert any(f == field and text in m for f, m in found), found


async def test_required_fields(api, widgets, widget) -> None:
    body = widget("a")
    del body["spec"]["size"]
    assert ("spec.size", "Required value") in causes(await api.post(widgets, body))
    del body["spec"]
    assert ("spec", "Required value") in causes(await api.post(widgets, body))


async def test_the_message_names_object_and_fields(api, widgets, widget) -> None:
    refused = await api.post(widgets, widget("a", size=0))
    assert refused.body["message"] == (
        'Widget.conformance.example.com "a" is invalid: spec.size: Invalid value: 0: spec.size in '
        "body should be greater than or equal to 1"
    )
    assert refused.body["details"]["kind"] == "Widget"
    assert refused.body["details"]["group"] == "conformance.example.com"
    several = await api.post(widgets, widget("a", size=0, steps=list("abcde")))
    message = several.body["message"]
    assert message.startswith('Widget.conformance.example.com "a" is invalid: [spec.s')
    assert message.endswith("]")


async def test_a_rule_with_a_computed_message_and_a_field(api, widgets, widget) -> None:
    refused = causes(await api.post(widgets, widget("a", size=9, limit=8)))
    assert len(refused) == 1
    field, message = refused[0]
    assert field == "spec.size"
    assert message.endswith(": Red widgets may not exceed their limit")
    assert (await api.post(widgets, widget("a", size=8, limit=8))).status == 201


async def test_a_rule_on_metadata(api, widgets, widget) -> None:
    refused = causes(await api.post(widgets, widget("a" * 41)))
    assert refused[0][0] == "spec"
    assert refused[0][1].endswith("metadata.name may have at most 40 characters")
    assert (await api.post(widgets, widget("a" * 40))).status == 201
    generated = widget("x")
    generated["metadata"] = {"generateName": "a" * 40}
    assert (await api.post(widgets, generated)).status == 422


async def test_a_rule_on_list_items(api, widgets, widget) -> None:
    ports = [{"name": "a"}, {"name": "b", "number": 22}]
    field, message = causes(await api.post(widgets, widget("a", ports=ports)))[0]
    assert field == "spec.ports[1]"
    assert message.endswith("port 22 is taken")


async def test_rules_wait_for_a_valid_shape(api, widgets, widget) -> None:
    found = causes(await api.post(widgets, widget("a", size=9, limit=8, rate="123456789")))
    assert ("spec.rate", "Too long: may not be more than 8 bytes") in found
    assert not any("may not exceed" in m for _, m in found)


async def test_a_transition_rule_runs_on_updates_only(api, widgets, widget) -> None:
    await api.post(widgets, widget("a", color="Blue"))
    field, message = causes(await api.merge(f"{widgets}/a", {"spec": {"color": "Red"}}))[0]
    assert field == "spec.color"
    # the value of a field with a rule of its own is shown, an object's is not
    assert message == 'Invalid value: "Red": color cannot change'
    assert (await api.merge(f"{widgets}/a", {"spec": {"size": 2}})).status == 200


async def test_a_spec_frozen_by_its_status(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    assert (await api.merge(f"{widgets}/a", {"spec": {"size": 2}})).status == 200
    started = await api.merge(f"{widgets}/a/status", {"status": {"started": "now"}})
    assert started.status == 200
    refused = causes(await api.merge(f"{widgets}/a", {"spec": {"size": 3}}))
    assert refused[0][1].endswith("spec is frozen once status.started is set")
    labelled = await api.merge(f"{widgets}/a", {"metadata": {"labels": {"x": "y"}}})
    assert labelled.status == 200
    counted = await api.merge(f"{widgets}/a/status", {"status": {"count": 2}})
    assert counted.status == 200


async def test_status_is_written_through_its_own_endpoint_only(api, widgets, widget) -> None:
    made = (await api.post(widgets, {**widget("a"), "status": {"count": 1}})).body
    assert "status" not in made
    ignored = await api.merge(f"{widgets}/a", {"status": {"count": 1}})
    assert "status" not in ignored.body
    assert ignored.body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    change = {"spec": {"size": 9}, "metadata": {"labels": {"x": "y"}}, "status": {"count": 1}}
    written = (await api.merge(f"{widgets}/a/status", change)).body
    assert written["status"] == {"count": 1}
    assert written["spec"]["size"] == 1
    assert "labels" not in written["metadata"]
    assert written["metadata"]["generation"] == 1
    assert (await api.get(f"{widgets}/a/status")).body == written


async def test_status_is_validated_and_versioned(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    assert causes(await api.merge(f"{widgets}/a/status", {"status": {"count": -1}}))
    pruned = await api.merge(f"{widgets}/a/status", {"status": {"x": 1, "count": 3}})
    assert pruned.body["status"] == {"count": 3}
    stale = await api.put(f"{widgets}/a/status", {**made, "status": {"count": 4}})
    assert stale.status == 409
    fresh = await api.put(f"{widgets}/a/status", {**pruned.body, "status": {"count": 4}})
    assert fresh.body["status"] == {"count": 4}
    removed = await api.json_patch(f"{widgets}/a/status", [{"op": "remove", "path": "/status"}])
    assert "status" not in removed.body


async def test_a_bad_field_is_named_again_on_update(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    found = causes(await api.merge(f"{widgets}/a", {"spec": {"size": 0}}))
    assert found[0][0] == "spec.size"
    assert (await api.get(f"{widgets}/a")).body["spec"]["size"] == 1

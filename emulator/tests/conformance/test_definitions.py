"""Which CustomResourceDefinitions a server accepts, and what becomes of those."""

from __future__ import annotations

import copy

import pytest

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "probes.probe.example.com"


def definition(properties: dict | None = None, *rules: dict) -> dict:
    spec = {"type": "object", "properties": properties or {"a": {"type": "string"}}}
    if rules:
        spec["x-kubernetes-validations"] = list(rules)
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": "probe.example.com",
            "scope": "Namespaced",
            "names": {"kind": "Probe", "plural": "probes"},
            "versions": [version],
        },
    }


def text(**bounds) -> dict:
    return {"type": "string", **bounds}


def array(items: dict, **bounds) -> dict:
    return {"type": "array", "items": items, **bounds}


def rule(expression: str, **more: str) -> dict:
    return {"rule": expression, **more}


A = "spec.validation.openAPIV3Schema.properties[spec].properties[a]"
RULE = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]"
ITEM = {"type": "object", "properties": {"x": text()}}
MAP = {"x-kubernetes-list-type": "map"}

BAD_SCHEMAS = {
    "no type": ({}, f"{A}.type"),
    "no type of items": (array({}), f"{A}.items.type"),
    "unknown type": ({"type": "text"}, f"{A}.type"),
    "reference": (text(**{"$ref": "#/x"}), f"{A}.$ref"),
    "unique items": (array(text(), uniqueItems=True), f"{A}.uniqueItems"),
    "two kinds of members": (
        {"type": "object", "properties": {"x": text()}, "additionalProperties": text()},
        f"{A}.additionalProperties",
    ),
    "pattern": (text(pattern="("), f"{A}.pattern"),
    "default of another type": (text(default=1), f"{A}.default"),
    "default outside the enum": (text(default="x", enum=["y"]), f"{A}.default"),
    "default with unknown fields": (
        {"type": "object", "default": {"x": 1}, "properties": {}},
        f"{A}.default",
    ),
    "no keys": (array(ITEM, **MAP), f"{A}.x-kubernetes-list-map-keys"),
    "unknown key": (
        array(ITEM, **MAP, **{"x-kubernetes-list-map-keys": ["y"]}),
        f"{A}.x-kubernetes-list-map-keys",
    ),
    "optional key": (
        array(ITEM, **MAP, **{"x-kubernetes-list-map-keys": ["x"]}),
        f"{A}.items.properties[x].default",
    ),
    "set of objects": (
        array(ITEM, **{"x-kubernetes-list-type": "set"}),
        f"{A}.items.x-kubernetes-map-type",
    ),
    "transition rule in an atomic list": (
        array(text(**{"x-kubernetes-validations": [rule("self == oldSelf")]}, maxLength=5)),
        f"{A}.items.x-kubernetes-validations[0].rule",
    ),
}


@pytest.mark.parametrize("case", BAD_SCHEMAS)
async def test_schemas_that_are_not_structural(api, case) -> None:
    schema, field = BAD_SCHEMAS[case]
    refused = await api.post(PATH, definition({"a": schema}), dryRun="All")
    assert refused.status == 422, refused.body
    assert field in [c["field"] for c in refused.body["details"]["causes"]]


BAD_RULES = {
    "syntax": (rule("self.a =="), f"{RULE}.rule", "compilation failed"),
    "empty": (rule(""), f"{RULE}.rule", "rule is not specified"),
    "empty message": (rule("true", message=" "), f"{RULE}.message", "must be non-empty"),
    "field path": (rule("true", fieldPath=".b"), f"{RULE}.fieldPath", "must be a valid path"),
    "reason": (rule("true", reason="Why"), f"{RULE}.reason", "Unsupported value"),
}


@pytest.mark.parametrize("case", BAD_RULES)
async def test_rules_that_do_not_compile(api, case) -> None:
    bad, field, message = BAD_RULES[case]
    refused = await api.post(PATH, definition(None, bad), dryRun="All")
    assert refused.status == 422, refused.body
    found = {c["field"]: c["message"] for c in refused.body["details"]["causes"]}
    assert message in found[field]


async def test_names_versions_and_scope(api) -> None:
    wrong = definition()
    wrong["metadata"]["name"] = "x.y.z"
    refused = await api.post(PATH, wrong, dryRun="All")
    assert 'must be spec.names.plural+"."+spec.group' in refused.body["message"]
    cases = {
        "spec.scope": {"scope": "Nowhere"},
        "spec.versions": {"versions": []},
        "spec.names.kind": {"names": {"plural": "probes"}},
    }
    for field, change in cases.items():
        body = definition()
        body["spec"] |= change
        refused = await api.post(PATH, body, dryRun="All")
        assert refused.status == 422, field
        assert field in [c["field"] for c in refused.body["details"]["causes"]]


async def test_unknown_words_in_a_schema(api) -> None:
    body = definition({"a": text(maximumLength=3)})
    strict = await api.post(PATH, body, dryRun="All", fieldValidation="Strict")
    assert strict.status == 400
    assert "openAPIV3Schema.properties.spec.properties.a.maximumLength" in strict.body["message"]


async def test_objects_are_read_in_the_version_asked_for(api, namespace, eventually) -> None:
    group = f"versions-{namespace}.example.com"
    body = definition()
    body["metadata"]["name"], body["spec"]["group"] = f"probes.{group}", group
    older = {**copy.deepcopy(body["spec"]["versions"][0]), "name": "v1beta1", "storage": False}
    body["spec"]["versions"].append(older)
    assert (await api.post(PATH, body)).status == 201
    paths = {v: f"/apis/{group}/{v}/namespaces/{namespace}/probes" for v in ("v1", "v1beta1")}
    probe = {"apiVersion": f"{group}/v1", "kind": "Probe", "metadata": {"name": "p"}}

    async def stored() -> bool:
        return (await api.post(paths["v1"], {**probe, "spec": {}})).status in (201, 409)

    await eventually(stored, "a Probe to be stored")
    for version, path in paths.items():
        wanted = f"{group}/{version}"
        assert (await api.get(f"{path}/p")).body["apiVersion"] == wanted
        assert [o["apiVersion"] for o in (await api.get(path)).body["items"]] == [wanted]
        async with api.watch(path) as following:
            assert (await following())["object"]["apiVersion"] == wanted
    await api.delete(f"{PATH}/probes.{group}")


async def test_a_definition_lives_and_dies(api, namespace, eventually) -> None:
    group = f"{namespace}.example.com"
    name = f"probes.{group}"
    path = f"/apis/{group}/v1/namespaces/{namespace}/probes"
    body = definition()
    body["metadata"]["name"], body["spec"]["group"] = name, group
    made = await api.post(PATH, body)
    assert made.status == 201
    names = made.body["spec"]["names"]
    assert (names["singular"], names["listKind"]) == ("probe", "ProbeList")

    async def established():
        found = (await api.get(f"{PATH}/{name}")).body
        conditions = {c["type"]: c["status"] for c in found["status"].get("conditions") or []}
        return conditions.get("Established") == conditions.get("NamesAccepted") == "True" and found

    ready = await eventually(established, "the definition to be established")
    assert ready["status"]["acceptedNames"]["kind"] == "Probe"
    assert ready["status"]["storedVersions"] == ["v1"]
    body = {"apiVersion": f"{group}/v1", "kind": "Probe", "metadata": {"name": "p"}}

    async def stored() -> bool:
        return (await api.post(path, {**body, "spec": {"a": "1"}})).status in (201, 409)

    await eventually(stored, "a Probe to be stored")
    without = copy.deepcopy(ready)
    schema = without["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["b"] = text(default="new")
    assert (await api.put(f"{PATH}/{name}", without)).status == 200

    async def defaulted() -> bool:
        return (await api.get(f"{path}/p")).body["spec"].get("b") == "new"

    await eventually(defaulted, "the new default to be read")
    await api.delete(f"{PATH}/{name}")

    async def unserved() -> bool:
        return (await api.get(path)).status == 404

    await eventually(unserved, "Probes to be unknown")
    assert (await api.get(f"{PATH}/{name}")).status == 404

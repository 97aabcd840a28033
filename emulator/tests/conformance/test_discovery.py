"""Discovery, OpenAPI, version and health, as clients read them."""

from __future__ import annotations

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


async def test_groups_versions_and_resources(api, widgets) -> None:
    groups = (await api.get("/apis")).body
    mine = next(g for g in groups["groups"] if g["name"] == "conformance.example.com")
    assert mine["preferredVersion"] == {"groupVersion": mine["name"] + "/v1", "version": "v1"}
    assert (await api.get("/apis/conformance.example.com")).body["name"] == mine["name"]
    found = (await api.get("/apis/conformance.example.com/v1")).body
    assert found["kind"] == "APIResourceList"
    by_name = {r["name"]: r for r in found["resources"]}
    entry = by_name["widgets"]
    assert entry["singularName"] == "widget"
    assert (entry["kind"], entry["namespaced"]) == ("Widget", True)
    assert entry["shortNames"] == ["wdg"]
    assert {"create", "delete", "get", "list", "patch", "update", "watch"} <= set(entry["verbs"])
    assert set(by_name["widgets/status"]["verbs"]) == {"get", "patch", "update"}
    core = {r["name"]: r for r in (await api.get("/api/v1")).body["resources"]}
    assert core["pods"]["shortNames"] == ["po"]
    assert core["namespaces"]["namespaced"] is False
    assert {"pods/log", "pods/binding", "pods/status", "serviceaccounts/token"} <= core.keys()


async def test_aggregated_discovery(api, widgets) -> None:
    answer = await api.request("GET", "/apis", accept=AGGREGATED)
    assert answer.body["kind"] == "APIGroupDiscoveryList"
    assert "as=APIGroupDiscoveryList" in answer.headers["Content-Type"]
    items = {g["metadata"]["name"]: g for g in answer.body["items"]}
    version = items["conformance.example.com"]["versions"][0]
    resource = version["resources"][0]
    assert (version["version"], resource["resource"]) == ("v1", "widgets")
    assert resource["responseKind"]["kind"] == "Widget"
    assert resource["scope"] == "Namespaced"
    assert resource["subresources"][0]["subresource"] == "status"
    core = await api.request("GET", "/api", accept=AGGREGATED)
    assert core.body["items"][0]["versions"][0]["version"] == "v1"


async def test_openapi_describes_custom_and_builtin_kinds(api, widgets, eventually) -> None:
    async def listed():
        paths = (await api.get("/openapi/v3")).body["paths"]
        return paths.get("apis/conformance.example.com/v1")

    entry = await eventually(listed, "the OpenAPI document")
    url = entry["serverRelativeURL"]
    path, _, query = url.partition("?")
    document = (await api.get(path, hash=query.partition("=")[2])).body
    schemas = document["components"]["schemas"].values()
    gvk = {"group": "conformance.example.com", "version": "v1", "kind": "Widget"}
    mine = next(s for s in schemas if gvk in s.get("x-kubernetes-group-version-kind", []))
    assert mine["properties"]["spec"]["properties"]["size"]["description"] == "How big it is."
    base = "/apis/conformance.example.com/v1/namespaces/{namespace}/widgets/{name}"
    patch = document["paths"][base]["patch"]
    assert {"dryRun", "fieldManager", "fieldValidation"} <= {p["name"] for p in patch["parameters"]}
    core = (await api.get("/openapi/v3/api/v1")).body["components"]["schemas"]
    assert "containers" in core["io.k8s.api.core.v1.PodSpec"]["properties"]


async def test_version_and_health(api) -> None:
    version = (await api.get("/version")).body
    assert version["major"] == "1"
    assert int(version["minor"].rstrip("+")) >= 29
    for path in ("/healthz", "/livez", "/readyz"):
        answer = await api.get(path)
        assert (answer.status, answer.body) == (200, "ok")


async def test_unknown_groups_are_not_found(api) -> None:
    assert (await api.get("/apis/nothing.dev")).status == 404
    assert (await api.get("/apis/nothing.dev/v1")).status == 404
    assert (await api.get("/openapi/v3/apis/nothing.dev/v1")).status == 404

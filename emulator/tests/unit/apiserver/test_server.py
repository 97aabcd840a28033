"""The server as it stands alone: what is not emulated, its files, its counters, its limits."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from kube_emulator.apiserver.access.authn import ISSUER
from kube_emulator.apiserver.server import ApiServer
from kube_support.api import Api, connect

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer(tmp_path / "cluster", history=20) as running:
        yield running


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[Api]:
    async with connect(server.kubeconfig) as connected:
        yield connected


NOT_EMULATED = {
    "/apis/batch/v1/namespaces/default/jobs": "Jobs",
    "/apis/apps/v1/namespaces/default/statefulsets": "StatefulSets",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations": "admission webhooks",
    "/api/v1/namespaces/default/resourcequotas": "resource quotas",
    "/apis/apps/v1/namespaces/default/deployments/x/scale": "deployments/scale",
    "/api/v1/namespaces/default/pods/x/exec": "pods/exec",
    "/apis/events.k8s.io/v1/namespaces/default/events": "events.k8s.io",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": "access reviews",
}


@pytest.mark.parametrize("path", NOT_EMULATED)
async def test_what_is_lacking_is_named(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status, answer.body["reason"]) == (501, "NotImplemented")
    assert NOT_EMULATED[path] in answer.body["message"]
    assert "use a real cluster" in answer.body["message"]


async def test_aggregated_roles_are_named(api: Api) -> None:
    body = {"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": []}}
    body["aggregationRule"]["clusterRoleSelectors"] = [{"matchLabels": {"a": "b"}}]
    refused = await api.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", body)
    assert refused.status == 501
    assert "aggregated ClusterRoles" in refused.body["message"]


async def test_acting_as_somebody_else_is_not_taken_for_the_administrator(api: Api) -> None:
    refused = await api.request("GET", CONFIG_MAPS, headers={"Impersonate-User": "nobody"})
    assert refused.status == 501
    assert "impersonation" in refused.body["message"]


async def test_files_are_for_the_owner_only(server: ApiServer) -> None:
    assert stat.S_IMODE(server.kubeconfig.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.kubeconfig.parent.stat().st_mode) == 0o700
    assert server.authenticator.admin_token in server.kubeconfig.read_text()
    assert server.url.startswith("https://127.0.0.1:")


async def test_no_credentials_are_unauthorized(api: Api) -> None:
    anonymous = api.as_token(None)
    for path in (CONFIG_MAPS, "/version", "/apis", "/debug/requests"):
        assert (await anonymous.get(path)).status == 401
    for path in ("/healthz", "/readyz", "/livez/ping"):
        assert (await anonymous.get(path)).status == 200


async def test_requests_are_counted_for_the_administrator(api: Api) -> None:
    await api.get(CONFIG_MAPS)
    await api.get(CONFIG_MAPS)
    await api.merge(f"{CONFIG_MAPS}/kube-root-ca.crt", {"data": {"a": "b"}})
    await api.get("/api/v1/namespaces/default/pods/none/log")
    counted = (await api.get("/debug/requests")).body
    assert counted["list configmaps"] == 2
    assert counted["patch configmaps"] == 1
    assert counted["get pods/log"] == 1
    account = "/api/v1/namespaces/default/serviceaccounts/default/token"
    token = (await api.post(account, {"spec": {}})).body["status"]["token"]
    assert (await api.as_token(token).get("/debug/requests")).status == 403


async def test_history_ends_with_410(api: Api) -> None:
    start = (await api.get(CONFIG_MAPS)).body["metadata"]["resourceVersion"]
    for i in range(30):
        await api.post(CONFIG_MAPS, {"metadata": {"name": f"m{i}"}})
    refused = await api.get(CONFIG_MAPS, watch="true", resourceVersion=start)
    assert (refused.status, refused.body["reason"]) == (410, "Expired")
    future = str(int(start) + 10_000)
    assert (await api.get(CONFIG_MAPS, resourceVersion=future)).status == 504
    assert (await api.get(CONFIG_MAPS, watch="true", resourceVersion=future)).status == 504


async def test_bookmarks_say_how_far_a_quiet_watch_is(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kube_emulator.apiserver.objects.watch._BOOKMARK_SECONDS", 0.05)
    start = (await api.get(CONFIG_MAPS)).body["metadata"]["resourceVersion"]
    query = {"resourceVersion": start, "labelSelector": "on=yes"}
    async with api.watch(CONFIG_MAPS, allowWatchBookmarks="true", **query) as following:
        await api.post(CONFIG_MAPS, {"metadata": {"name": "unselected"}})
        while True:
            mark = await following()
            assert mark["type"] == "BOOKMARK"
            if int(mark["object"]["metadata"]["resourceVersion"]) > int(start):
                break


async def test_old_pages_are_gone(api: Api) -> None:
    for i in range(3):
        await api.post(CONFIG_MAPS, {"metadata": {"name": f"m{i}"}})
    first = (await api.get(CONFIG_MAPS, limit="1")).body["metadata"]["continue"]
    for _ in range(70):
        await api.get(CONFIG_MAPS, limit="1")
    refused = await api.get(CONFIG_MAPS, **{"continue": first})
    assert (refused.status, refused.body["reason"]) == (410, "Expired")


async def test_stopping_ends_open_watches(tmp_path: Path) -> None:
    async with (
        ApiServer(tmp_path) as server,
        connect(server.kubeconfig) as api,
        api.watch(CONFIG_MAPS) as following,
    ):
        assert (await following())["type"] == "ADDED"
        stopping = asyncio.create_task(server.stop())
        assert await following() is None
        await stopping


async def test_an_expired_or_foreign_token_is_refused(api: Api, server: ApiServer) -> None:
    base = "/api/v1/namespaces/default/serviceaccounts"
    made = await api.post(f"{base}/default/token", {"spec": {"audiences": ["elsewhere"]}})
    other = made.body["status"]["token"]
    assert (await api.as_token(other).get("/version")).status == 401
    token = (await api.post(f"{base}/default/token", {"spec": {}})).body["status"]["token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["aud"] == [ISSUER]
    key: Any = server.authenticator._key
    expired = jwt.encode({**claims, "exp": 1}, key, algorithm="HS256")
    forged = jwt.encode(claims, b"x" * 32, algorithm="HS256")
    for bad in (expired, forged, token + "x"):
        assert (await api.as_token(bad).get("/version")).status == 401
    assert (await api.as_token(token).get("/version")).status == 200


async def test_large_objects_fit_and_larger_ones_do_not(api: Api) -> None:
    body = {"metadata": {"name": "m"}, "data": {"a": "x" * 900_000}}
    assert (await api.post(CONFIG_MAPS, body)).status == 201
    huge = {"metadata": {"name": "n"}, "data": {"a": "x" * 4_000_000}}
    assert (await api.post(CONFIG_MAPS, huge)).status == 413


async def test_an_evicted_pod_goes(api: Api) -> None:
    pods = "/api/v1/namespaces/default/pods"
    spec = {"containers": [{"name": "c", "image": "x.dev/a:1"}]}
    await api.post(pods, {"metadata": {"name": "p"}, "spec": spec})
    assert (await api.post(f"{pods}/p/eviction", {"metadata": {"name": "p"}})).status == 201
    assert (await api.get(f"{pods}/p")).status == 404


async def test_cluster_resources_have_no_namespace(api: Api) -> None:
    assert (await api.get("/api/v1/namespaces/default/nodes")).status == 404
    assert (await api.get("/api/v1/pods/p/log/more/parts")).status == 404

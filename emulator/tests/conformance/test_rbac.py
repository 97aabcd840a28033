"""Authentication by token, authorization by roles, and that nobody grants more than they hold."""

from __future__ import annotations

import pytest

from kube_support.api import eventually

GROUP = "rbac.authorization.k8s.io"


class Account:
    """A ServiceAccount of the test with a token, and roles bound to it."""

    def __init__(self, api, namespace: str) -> None:
        self._admin = api
        self._namespace = namespace
        self.path = f"/apis/{GROUP}/v1/namespaces/{namespace}"

    async def setup(self) -> Account:
        base = f"/api/v1/namespaces/{self._namespace}/serviceaccounts"
        made = await self._admin.post(base, {"metadata": {"name": "robot"}})
        assert made.status == 201
        token = await self._admin.post(f"{base}/robot/token", {"spec": {}})
        assert token.status == 201, token.body
        self.token = token.body["status"]["token"]
        self.api = self._admin.as_token(self.token)
        return self

    async def allow(self, name: str, *rules: dict) -> None:
        role = {"metadata": {"name": name}, "rules": list(rules)}
        assert (await self._admin.post(f"{self.path}/roles", role)).status == 201
        bound = await self._admin.post(f"{self.path}/rolebindings", self.binding(name))
        assert bound.status == 201
        await eventually(lambda: self._holds(rules[-1]), "the rules to be held")

    async def _holds(self, wanted: dict) -> bool:
        """Whether the server knows by now; the emulator, which has no reviews, always does."""
        resource, _, sub = wanted["resources"][0].partition("/")
        attributes = {
            "namespace": self._namespace,
            "verb": wanted["verbs"][0],
            "group": wanted["apiGroups"][0],
            "resource": resource if resource != "*" else "anything",
            "subresource": sub,
            "name": wanted.get("resourceNames", [""])[0],
        }
        user = f"system:serviceaccount:{self._namespace}:robot"
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = await self._admin.post(path, body)
        return answer.status == 501 or answer.body["status"]["allowed"]

    def binding(self, role: str, kind: str = "Role") -> dict:
        subject = {"kind": "ServiceAccount", "name": "robot", "namespace": self._namespace}
        return {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
            "subjects": [subject],
        }


def rule(verbs: str, resources: str, group: str = "", names: str = "") -> dict:
    found = {
        "verbs": verbs.split(),
        "apiGroups": [group],
        "resources": resources.split(),
    }
    return found | ({"resourceNames": names.split()} if names else {})


@pytest.fixture
async def robot(api, namespace) -> Account:
    return await Account(api, namespace).setup()


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


async def test_a_wrong_token_is_unauthorized(api, maps) -> None:
    answer = await api.as_token("not-a-token").get(maps)
    assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")


async def test_no_token_gets_nothing(api, maps) -> None:
    assert (await api.as_token(None).get(maps)).status in (401, 403)


async def test_an_account_without_roles_gets_nothing(api, robot, namespace, maps) -> None:
    answer = await robot.api.get(maps)
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    user = f"system:serviceaccount:{namespace}:robot"
    assert answer.body["message"] == (
        f'configmaps is forbidden: User "{user}" cannot list resource "configmaps" in API group "" '
        f'in the namespace "{namespace}"'
    )
    one = await robot.api.get("/api/v1/nodes/x")
    assert one.body["message"] == (
        f'nodes "x" is forbidden: User "{user}" cannot get resource "nodes" in API group "" at the '
        "cluster scope"
    )
    assert (await robot.api.get("/version")).status == 200
    assert (await robot.api.get("/apis")).status == 200


async def test_a_role_allows_its_verbs_in_its_namespace(api, robot, maps) -> None:
    await robot.allow("reader", rule("get list watch", "configmaps"))
    assert (await robot.api.get(maps)).status == 200
    assert (await robot.api.get(maps, watch="true", timeoutSeconds="1")).status == 200
    assert (await robot.api.post(maps, {"metadata": {"name": "x"}})).status == 403
    assert (await robot.api.delete(maps)).status == 403
    assert (await robot.api.get("/api/v1/namespaces/default/configmaps")).status == 403
    assert (await robot.api.get("/api/v1/configmaps")).status == 403


async def test_resource_names(api, robot, maps) -> None:
    for name in ("mine", "yours"):
        await api.post(maps, {"metadata": {"name": name}})
    await robot.allow("one", rule("get patch list", "configmaps", names="mine"))
    assert (await robot.api.get(f"{maps}/mine")).status == 200
    assert (await robot.api.merge(f"{maps}/mine", {"data": {"a": "1"}})).status == 200
    assert (await robot.api.get(f"{maps}/yours")).status == 403
    assert (await robot.api.get(maps)).status == 403
    assert (await robot.api.get(maps, fieldSelector="metadata.name=mine")).status == 200


async def test_subresources_are_resources_of_their_own(api, robot, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    group = "conformance.example.com"
    await robot.allow(
        "status", rule("get", "widgets", group), rule("patch", "widgets/status", group)
    )
    allowed = await robot.api.merge(f"{widgets}/a/status", {"status": {"count": 1}})
    assert allowed.status == 200
    assert (await robot.api.merge(f"{widgets}/a", {"spec": {"size": 2}})).status == 403
    assert (await robot.api.get(f"{widgets}/a/status")).status == 403
    denied = await robot.api.put(f"{widgets}/a/status", allowed.body)
    assert 'cannot update resource "widgets/status" in API group' in denied.body["message"]


async def test_a_namespace_lies_in_itself(api, robot, namespace) -> None:
    await robot.allow("own", rule("get", "namespaces"))
    assert (await robot.api.get(f"/api/v1/namespaces/{namespace}")).status == 200
    assert (await robot.api.get("/api/v1/namespaces/default")).status == 403


async def test_wildcards(api, robot, widgets, maps) -> None:
    await robot.allow("all", {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
    assert (await robot.api.get(maps)).status == 200
    assert (await robot.api.get(widgets)).status == 200
    assert (await robot.api.get("/api/v1/nodes")).status == 403


async def test_a_cluster_role_bound_in_a_namespace(api, robot, namespace, maps) -> None:
    name = f"conformance-{namespace}"
    body = {"metadata": {"name": name}, "rules": [rule("list", "configmaps nodes")]}
    assert (await api.post(f"/apis/{GROUP}/v1/clusterroles", body)).status == 201
    bound = await api.post(f"{robot.path}/rolebindings", robot.binding(name, "ClusterRole"))
    assert bound.status == 201
    assert (await robot.api.get(maps)).status == 200
    assert (await robot.api.get("/api/v1/nodes")).status == 403
    await api.delete(f"/apis/{GROUP}/v1/clusterroles/{name}")

    async def forbidden() -> bool:
        return (await robot.api.get(maps)).status == 403

    await eventually(forbidden, "the rules of the deleted role to go")


async def test_a_role_may_not_grant_what_its_author_lacks(api, robot) -> None:
    await robot.allow(
        "author", rule("create update patch", "roles", GROUP), rule("get", "configmaps")
    )
    roles = f"{robot.path}/roles"
    fine = {"metadata": {"name": "fine"}, "rules": [rule("get", "configmaps", names="x")]}
    assert (await robot.api.post(roles, fine)).status == 201
    more = {"metadata": {"name": "more"}, "rules": [rule("get delete", "configmaps")]}
    refused = await robot.api.post(roles, more)
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert "is attempting to grant RBAC permissions not currently held" in refused.body["message"]
    assert '{APIGroups:[""], Resources:["configmaps"], Verbs:["delete"]}' in refused.body["message"]
    assert "get" not in refused.body["message"].rpartition("held:")[2]
    grown = {"rules": [rule("get", "secrets")]}
    assert (await robot.api.merge(f"{roles}/fine", grown)).status == 403
    renamed = {"metadata": {"labels": {"a": "b"}}}
    assert (await robot.api.merge(f"{roles}/fine", renamed)).status == 200


async def test_a_role_for_one_name_covers_one_name(api, robot) -> None:
    await robot.allow(
        "author", rule("create", "roles", GROUP), rule("get", "configmaps", names="mine")
    )
    roles = f"{robot.path}/roles"
    same = {"metadata": {"name": "same"}, "rules": [rule("get", "configmaps", names="mine")]}
    assert (await robot.api.post(roles, same)).status == 201
    every = {"metadata": {"name": "every"}, "rules": [rule("get", "configmaps")]}
    assert (await robot.api.post(roles, every)).status == 403
    other = {"metadata": {"name": "other"}, "rules": [rule("get", "configmaps", names="yours")]}
    assert (await robot.api.post(roles, other)).status == 403


async def test_escalate_allows_what_holding_does_not(api, robot) -> None:
    await robot.allow("author", rule("create escalate", "roles", GROUP))
    more = {"metadata": {"name": "more"}, "rules": [rule("delete", "secrets")]}
    assert (await robot.api.post(f"{robot.path}/roles", more)).status == 201


async def test_a_binding_needs_the_rules_or_the_verb_bind(api, robot) -> None:
    await robot.allow("author", rule("create", "rolebindings", GROUP))
    strong = {"metadata": {"name": "strong"}, "rules": [rule("delete", "secrets")]}
    await api.post(f"{robot.path}/roles", strong)
    bindings = f"{robot.path}/rolebindings"
    refused = await robot.api.post(bindings, robot.binding("strong"))
    assert refused.status == 403
    assert "not currently held" in refused.body["message"]
    await robot.allow("binder", rule("bind", "roles", GROUP, names="strong"))
    assert (await robot.api.post(bindings, robot.binding("strong"))).status == 201


async def test_a_binding_waits_for_its_role(api, robot) -> None:
    await robot.allow("author", rule("create", "rolebindings roles", GROUP))
    bindings = f"{robot.path}/rolebindings"
    refused = await robot.api.post(bindings, robot.binding("later"))
    assert refused.status == 404
    assert refused.body["message"] == f'roles.{GROUP} "later" not found'
    await robot.allow("binder", rule("bind", "roles", GROUP, names="later"))
    assert (await robot.api.post(bindings, robot.binding("later"))).status == 201


async def test_a_role_reference_is_frozen(api, robot) -> None:
    await robot.allow("reader", rule("get", "configmaps"))
    changed = {"roleRef": {"name": "other"}}
    refused = await api.merge(f"{robot.path}/rolebindings/reader", changed)
    assert refused.status == 422
    assert "cannot change roleRef" in refused.body["message"]


async def test_a_subresource_of_every_resource(api, robot, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    await robot.allow("statuses", rule("get", "*/status", "conformance.example.com"))
    assert (await robot.api.get(f"{widgets}/a/status")).status == 200
    assert (await robot.api.get(f"{widgets}/a")).status == 403


async def test_an_account_of_another_namespace(api, robot, namespace) -> None:
    path = f"/apis/{GROUP}/v1/namespaces/default"
    name = f"conformance-{namespace}"
    await api.post(f"{path}/roles", {"metadata": {"name": name}, "rules": [rule("list", "pods")]})
    await api.post(f"{path}/rolebindings", robot.binding(name))

    async def allowed() -> bool:
        return (await robot.api.get("/api/v1/namespaces/default/pods")).status == 200

    await eventually(allowed, "the binding in the other namespace to count")
    for plural in ("rolebindings", "roles"):
        await api.delete(f"{path}/{plural}/{name}")


async def test_tokens_are_bound_to_their_pod(api, namespace) -> None:
    base = f"/api/v1/namespaces/{namespace}"
    spec = {"serviceAccountName": "default", "containers": [{"name": "c", "image": "x.dev/a:1"}]}
    pod = (await api.post(f"{base}/pods", {"metadata": {"name": "p"}, "spec": spec})).body
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]}
    body = {"spec": {"boundObjectRef": reference, "expirationSeconds": 700}}
    answer = await api.post(f"{base}/serviceaccounts/default/token", body)
    assert answer.status == 201, answer.body
    assert answer.body["kind"] == "TokenRequest"
    assert answer.body["status"]["expirationTimestamp"]
    bearer = api.as_token(answer.body["status"]["token"])
    assert (await bearer.get("/version")).status == 200
    wrong = {**reference, "uid": "ef41b6e6-6ac2-4ab1-a5f6-0b8f1e5d7f1c"}
    refused = {"spec": {"boundObjectRef": wrong}}
    assert (await api.post(f"{base}/serviceaccounts/default/token", refused)).status == 409
    await api.post(f"{base}/serviceaccounts", {"metadata": {"name": "other"}})
    foreign = await api.post(f"{base}/serviceaccounts/other/token", body)
    assert foreign.status == 400, foreign.body
    brief = {"spec": {"expirationSeconds": 5}}
    assert (await api.post(f"{base}/serviceaccounts/default/token", brief)).status == 422
    assert (await bearer.get(f"{base}/pods")).status == 403
    await api.delete(f"{base}/pods/p")

    async def refused_now() -> bool:
        return (await bearer.get(f"{base}/pods")).status == 401

    await eventually(refused_now, "the token of the deleted pod to be refused")


async def test_a_token_dies_with_its_account(api, robot, namespace) -> None:
    assert (await robot.api.get("/version")).status == 200
    await api.delete(f"/api/v1/namespaces/{namespace}/serviceaccounts/robot")

    async def refused() -> bool:
        return (await robot.api.get(f"/api/v1/namespaces/{namespace}/pods")).status == 401

    await eventually(refused, "the token to be refused")

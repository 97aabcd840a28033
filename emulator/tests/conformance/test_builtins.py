"""Built-in kinds as far as operators and their charts rely on them."""

from __future__ import annotations

import pytest


@pytest.fixture
def base(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}"


def pod(name: str = "p", **spec) -> dict:
    container = {"name": "c", "image": "example.com/a:1"}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def test_a_pod_gets_its_defaults(api, base) -> None:
    made = (await api.post(f"{base}/pods", pod())).body
    spec = made["spec"]
    assert spec["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert (spec["priority"], spec["enableServiceLinks"]) == (0, True)
    container = spec["containers"][0]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["terminationMessagePolicy"] == "File"
    assert made["status"]["phase"] == "Pending"
    assert made["status"]["qosClass"] == "BestEffort"


async def test_the_accounts_token_is_mounted(api, base) -> None:
    made = (await api.post(f"{base}/pods", pod())).body["spec"]
    mount = made["containers"][0]["volumeMounts"][0]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert mount["readOnly"] is True
    volume = next(v for v in made["volumes"] if v["name"] == mount["name"])
    sources = {
        kind: source[kind] for source in volume["projected"]["sources"][:2] for kind in source
    }
    assert sources["serviceAccountToken"]["path"] == "token"
    assert sources["configMap"]["name"] == "kube-root-ca.crt"
    where = next(s["downwardAPI"] for s in volume["projected"]["sources"] if "downwardAPI" in s)
    assert where["items"][0]["path"] == "namespace"
    bare = (await api.post(f"{base}/pods", pod("q", automountServiceAccountToken=False))).body
    assert "volumes" not in bare["spec"]
    await api.merge(f"{base}/serviceaccounts/default", {"automountServiceAccountToken": False})
    off = (await api.post(f"{base}/pods", pod("r"))).body
    assert "volumes" not in off["spec"]
    asked = (await api.post(f"{base}/pods", pod("s", automountServiceAccountToken=True))).body
    assert asked["spec"]["volumes"]


async def test_limits_stand_for_requests_and_quality(api, base) -> None:
    body = pod()
    body["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}}
    made = (await api.post(f"{base}/pods", body)).body
    resources = made["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert made["status"]["qosClass"] == "Guaranteed"
    body = pod("q")
    body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    assert (await api.post(f"{base}/pods", body)).body["status"]["qosClass"] == "Burstable"


QUANTITIES = {"1000m": "1", "0.5": "500m", "1024Mi": "1Gi", "1.5Gi": "1536Mi", "1000Ki": "1000Ki"}


@pytest.mark.parametrize("written", QUANTITIES)
async def test_quantities_are_stored_in_one_form(api, base, written) -> None:
    body = pod()
    body["spec"]["containers"][0]["resources"] = {"limits": {"example.com/x": written}}
    if written.startswith(("0.", "1.")):
        body["spec"]["containers"][0]["resources"] = {"requests": {"memory": written}}
    made = (await api.post(f"{base}/pods", body, dryRun="All")).body
    requests = made["spec"]["containers"][0]["resources"]["requests"]
    assert list(requests.values()) == [QUANTITIES[written]]


async def test_templates_do_not_request_what_they_limit(api, namespace) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    template["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    made = (await api.post(path, {"metadata": {"name": "d"}, "spec": spec})).body
    resources = made["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "1"}}


async def test_a_pod_tolerates_a_node_that_is_away_for_a_while(api, base) -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
    made = (await api.post(f"{base}/pods", pod(tolerations=[own]))).body
    keys = {t["key"]: t.get("tolerationSeconds") for t in made["spec"]["tolerations"]}
    assert keys == {"node.kubernetes.io/not-ready": None, "node.kubernetes.io/unreachable": 300}


BAD_PODS = {
    "no containers": ({"containers": []}, "spec.containers"),
    "no image": ({"containers": [{"name": "c"}]}, "spec.containers[0].image"),
    "no name": ({"containers": [{"image": "x.dev/a:1"}]}, "spec.containers[0].name"),
    "same name": (
        {"containers": [{"name": "c", "image": "x.dev/a:1"}] * 2},
        "spec.containers[1].name",
    ),
    "no volume": (
        {
            "containers": [
                {
                    "name": "c",
                    "image": "x.dev/a:1",
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                }
            ]
        },
        "spec.containers[0].volumeMounts[0].name",
    ),
}


@pytest.mark.parametrize("case", BAD_PODS)
async def test_pods_that_are_refused(api, base, case) -> None:
    spec, field = BAD_PODS[case]
    refused = await api.post(f"{base}/pods", {"metadata": {"name": "p"}, "spec": spec})
    assert refused.status == 422, refused.body
    assert field in [c["field"] for c in refused.body["details"]["causes"]]


async def test_a_pod_needs_its_account_and_priority_class(api, base) -> None:
    refused = await api.post(f"{base}/pods", pod(serviceAccountName="nobody"))
    assert refused.status == 403
    assert 'serviceaccount "nobody" not found' in refused.body["message"]
    refused = await api.post(f"{base}/pods", pod(priorityClassName="urgent-nothing"))
    assert refused.status == 403
    assert "no PriorityClass with name urgent-nothing was found" in refused.body["message"]


async def test_a_pods_spec_is_frozen(api, base) -> None:
    await api.post(f"{base}/pods", pod())
    refused = await api.strategic(f"{base}/pods/p", {"spec": {"restartPolicy": "Never"}})
    assert refused.status == 422
    assert "pod updates may not change fields other than" in refused.body["message"]
    image = {"spec": {"containers": [{"name": "c", "image": "example.com/a:2"}]}}
    assert (await api.strategic(f"{base}/pods/p", image)).status == 200


async def test_pod_status_is_apart(api, base) -> None:
    await api.post(f"{base}/pods", pod())
    ignored = await api.merge(f"{base}/pods/p", {"status": {"phase": "Running"}})
    assert ignored.body["status"]["phase"] == "Pending"
    written = await api.strategic(f"{base}/pods/p/status", {"status": {"phase": "Failed"}})
    assert written.body["status"]["phase"] == "Failed"
    failed = await api.get(f"{base}/pods", fieldSelector="status.phase=Failed")
    assert [o["metadata"]["name"] for o in failed.body["items"]] == ["p"]
    assert not (await api.get(f"{base}/pods", fieldSelector="spec.nodeName=x")).body["items"]


async def test_strict_validation_reaches_into_pods(api, base) -> None:
    body = pod()
    body["spec"]["containers"][0]["imagee"] = "x"
    refused = await api.post(f"{base}/pods", body, fieldValidation="Strict")
    assert refused.status == 400
    assert 'unknown field "spec.containers[0].imagee"' in refused.body["message"]


async def test_a_deployment_gets_its_defaults(api, namespace) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = (await api.post(path, {"metadata": {"name": "d"}, "spec": spec})).body
    assert made["spec"]["replicas"] == 1
    assert made["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert made["metadata"]["generation"] == 1
    status = {"status": {"replicas": 1, "observedGeneration": 1}}
    assert (await api.merge(f"{path}/d/status", status)).body["metadata"]["generation"] == 1
    scaled = await api.merge(f"{path}/d", {"spec": {"replicas": 2}})
    assert scaled.body["metadata"]["generation"] == 2
    assert scaled.body["status"]["replicas"] == 1
    wrong = {**spec, "selector": {"matchLabels": {"a": "c"}}}
    refused = await api.post(path, {"metadata": {"name": "e"}, "spec": wrong})
    assert refused.status == 422
    assert "`selector` does not match template `labels`" in refused.body["message"]
    moved = await api.merge(f"{path}/d", {"spec": {"selector": {"matchLabels": {"x": "y"}}}})
    assert moved.status == 422


async def test_secrets_encode_their_strings(api, base) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    made = (await api.post(f"{base}/secrets", body)).body
    assert made["data"] == {"a": "Yg==", "c": "ZA=="}
    assert "stringData" not in made
    assert made["type"] == "Opaque"


async def test_immutable_maps(api, base) -> None:
    body = {"metadata": {"name": "m"}, "data": {"a": "1"}, "immutable": True}
    await api.post(f"{base}/configmaps", body)
    for change in ({"data": {"a": "2"}}, {"immutable": False}):
        refused = await api.merge(f"{base}/configmaps/m", change)
        assert refused.status == 422
        assert "field is immutable when `immutable` is set" in refused.body["message"]


async def test_leases_need_a_version_to_be_replaced(api, namespace) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    spec = {"holderIdentity": "me", "renewTime": "2026-01-02T03:04:05.000000Z"}
    made = (await api.post(path, {"metadata": {"name": "l"}, "spec": spec})).body
    assert made["spec"] == spec
    unversioned = {"metadata": {"name": "l"}, "spec": spec}
    assert (await api.put(f"{path}/l", unversioned)).status == 422
    renewed = {**made, "spec": {**spec, "renewTime": "2026-01-02T03:04:06.000000Z"}}
    assert (await api.put(f"{path}/l", renewed)).status == 200
    assert (await api.put(f"{path}/l", renewed)).status == 409


def event(namespace: str, name: str) -> dict:
    return {
        "metadata": {"name": name},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "p",
            "namespace": namespace,
            "uid": "1234",
        },
        "reason": "Tested",
        "message": "it was tested",
        "type": "Normal",
        "count": 2,
        "source": {"component": "tester"},
        "firstTimestamp": "2026-01-02T03:04:05Z",
        "lastTimestamp": "2026-01-02T03:04:06Z",
    }


async def test_events_are_selected_by_their_object(api, base, namespace) -> None:
    assert (await api.post(f"{base}/events", event(namespace, "e"))).status == 201
    selector = "involvedObject.name=p,involvedObject.uid=1234,type=Normal"
    found = (await api.get(f"{base}/events", fieldSelector=selector)).body["items"]
    assert [o["reason"] for o in found] == ["Tested"]
    other = (await api.get(f"{base}/events", fieldSelector="involvedObject.name=q")).body["items"]
    assert other == []


async def test_events_belong_to_their_objects_namespace(api, base) -> None:
    refused = await api.post(f"{base}/events", event("elsewhere", "e"))
    assert refused.status == 422
    assert "involvedObject.namespace" in refused.body["message"]


async def test_describe_shows_events(api, base, namespace, kubectl) -> None:
    made = (await api.post(f"{base}/pods", pod())).body
    body = event(namespace, "e")
    body["involvedObject"]["uid"] = made["metadata"]["uid"]
    await api.post(f"{base}/events", body)
    shown = kubectl("describe", "pod", "p", "-n", namespace).stdout
    assert "it was tested" in shown
    listed = kubectl("get", "events", "-n", namespace).stdout.splitlines()
    assert listed[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert "pod/p" in listed[1]


async def test_a_namespace_is_furnished(api, base, eventually) -> None:
    authority = (await api.get(f"{base}/configmaps/kube-root-ca.crt")).body
    assert "BEGIN CERTIFICATE" in authority["data"]["ca.crt"]
    await api.delete(f"{base}/serviceaccounts/default")

    async def back() -> bool:
        return (await api.get(f"{base}/serviceaccounts/default")).status == 200

    await eventually(back, "the default ServiceAccount to come back")

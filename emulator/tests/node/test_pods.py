"""What pods are given: configuration, volumes, names, a place to run."""

import json
import sys
from base64 import b64encode, urlsafe_b64decode

from kube_emulator.client import (
    CLAIMS,
    CONFIG_MAPS,
    SECRETS,
    SERVICES,
    Object,
)
from kube_emulator.node.pods.context import PATH
from kube_support.cluster import Cluster
from kube_support.pods import NAMESPACE, Pods, condition, sh, state

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


NODE_OPTIONS = ["--back-off=0.3", "--capacity=cpu=4", "--capacity=own/thing=1"]


async def secret(pods: Pods, short: str, **data: str) -> str:
    name = pods.name(short)
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    await pods.put(SECRETS, {"kind": "Secret", "metadata": {"name": name}, "data": encoded})
    return name


async def output(pods: Pods, name: str) -> str:
    pod = await pods.until_phase(name, "Succeeded", "Failed")
    text = await pods.logs(name)
    assert pod["status"]["phase"] == "Succeeded", text
    return text


async def test_volumes_of_secrets_config_maps_and_fields(pods: Pods) -> None:
    config = pods.name("config")
    await pods.put(
        CONFIG_MAPS,
        {"kind": "ConfigMap", "metadata": {"name": config}, "data": {"a": "A", "b": "B"}},
    )
    volumes = [
        {"name": "s", "secret": {"secretName": await secret(pods, "s", k="hidden")}},
        {
            "name": "c",
            "configMap": {"name": config, "items": [{"key": "b", "path": "sub/renamed"}]},
        },
        {
            "name": "p",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"configMap": {"name": config}},
                    {"downwardAPI": {"items": [field("uid", "metadata.uid")]}},
                    {"serviceAccountToken": {"path": "token", "audience": "me"}},
                ],
            },
        },
    ]
    mounts = [{"name": name, "mountPath": f"/in/{name}", "readOnly": True} for name in "scp"]
    mounts.append({"name": "p", "mountPath": "/one/file", "subPath": "a"})
    script = (
        "cd /in; cat s/k c/sub/renamed p/a p/b /one/file; echo; ls p; stat -c %a p/a; cat p/uid;"
        "touch s/new 2>/dev/null || echo; echo read-only; cut -d. -f2 p/token"
    )
    name = await pods.create("volumes", sh(script, volumeMounts=mounts), volumes=volumes)
    lines = (await output(pods, name)).splitlines()
    uid = (await pods.get(name))["metadata"]["uid"]
    assert lines[:-1] == ["hiddenBABA", "a", "b", "token", "uid", "440", uid, "read-only"]
    claims = json.loads(_decoded(lines[-1]))
    assert claims["aud"] == ["me"]
    assert claims["kubernetes.io"]["pod"]["uid"] == uid


def field(path: str, field_path: str) -> Object:
    return {"path": path, "fieldRef": {"fieldPath": field_path}}


def _decoded(part: str) -> bytes:

    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def test_the_service_account_reaches_the_api_server(pods: Pods) -> None:
    """With CA, namespace and token at the usual place, as every in-cluster client expects."""
    code = f"""
import os, ssl, urllib.request
base = "{TOKEN}/"
context = ssl.create_default_context(cafile=base + "ca.crt")
host = os.environ["KUBERNETES_SERVICE_HOST"] + ":" + os.environ["KUBERNETES_SERVICE_PORT"]
bearer = {{"Authorization": "Bearer " + open(base + "token").read()}}
request = urllib.request.Request(f"https://{{host}}/version", headers=bearer)
print(urllib.request.urlopen(request, context=context).status, open(base + "namespace").read())
"""
    name = await pods.create("token", {"command": [sys.executable, "-c", code]})
    assert await output(pods, name) == f"200 {NAMESPACE}\n"


async def test_environment_from_everywhere(pods: Pods) -> None:
    hidden = await secret(pods, "env", KEY="hidden")
    env = [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": hidden, "key": "KEY"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "BOTH", "value": "$(KEY)-$(NODE)"},
    ]
    container = {
        "command": ["/bin/sh", "-c"],
        "args": ["echo $(BOTH) $PWD $HOME $HOSTNAME $PATH; env | cut -d = -f 1 | sort | xargs"],
        "env": env,
        "workingDir": "/usr",
    }
    name = await pods.create("env", container)
    values, names = (await output(pods, name)).splitlines()
    assert values == f"hidden-emulated /usr /root {name} {PATH}"
    service = ("HOST", "PORT", "PORT_HTTPS")
    others = ("BOTH", "HOME", "HOSTNAME", "KEY", "NODE", "PATH", "PWD")
    assert set(names.split()) == {*others, *(f"KUBERNETES_SERVICE_{name}" for name in service)}


async def test_a_container_runs_as_its_pod_says(pods: Pods) -> None:
    """As a user whom nobody knows, and where it can write only to what is mounted for it."""
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    script = (
        "id -u; id -g; cut -d : -f 1 /etc/passwd /etc/group | xargs; echo $HOME;"
        "grep -E 'CapBnd|NoNewPrivs' /proc/self/status | cut -f 2;"
        "for place in / /tmp /var/tmp /etc/hosts /etc/passwd /dev/termination-log /scratch;"
        " do test -w $place && echo $place; done; true"
    )
    name = await pods.create(
        "fixed",
        sh(script, securityContext=context, volumeMounts=[{"name": "s", "mountPath": "/scratch"}]),
        securityContext={"runAsUser": 65532, "runAsGroup": 65533},
        volumes=[{"name": "s", "emptyDir": {}}],
    )
    who = ["65532", "65533", "root nobody root nogroup", "/", "0000000000000000", "1"]
    told = (await output(pods, name)).splitlines()
    assert told == [*who, "/dev/termination-log", "/scratch"]


async def test_pods_do_not_see_the_clusters_keys_or_each_others_files(
    pods: Pods, cluster: Cluster
) -> None:
    name = await pods.create("mask", sh(f"ls {cluster.directory} /tmp || true; touch /tmp/mine"))
    text = await output(pods, name)
    assert "apiserver" not in text
    assert "mine" not in text


async def test_a_missing_secret_holds_the_pod_until_it_comes(pods: Pods) -> None:
    wanted = pods.name("later")
    volumes = [{"name": "s", "secret": {"secretName": wanted}}]
    mounts = [{"name": "s", "mountPath": "/s"}]
    name = await pods.create("wait", sh("cat /s/k", volumeMounts=mounts), volumes=volumes)
    message = await pods.until_event(name, "FailedMount")
    assert message == f'MountVolume.SetUp failed for volume "s" : secret "{wanted}" not found'
    pod = await pods.get(name)
    assert pod["status"]["phase"] == "Pending"
    assert state(pod)["waiting"]["reason"] == "ContainerCreating"
    await secret(pods, "later", k="v")
    assert await output(pods, name) == "v"


async def test_an_unknown_image_is_not_pulled(pods: Pods) -> None:
    name = await pods.create("image", {"image": "example.com/app:9"})
    pod = await pods.until(name, lambda pod: "ImagePullBackOff" in str(state(pod)))
    words = 'Back-off pulling image "example.com/app:9"'
    assert state(pod)["waiting"]["message"].startswith(words)
    assert pod["status"]["phase"] == "Pending"
    events = [reason for reason, _ in await pods.events(name)]
    assert {"Failed", "BackOff"} <= set(events)
    await pods.delete(name)
    await pods.until_gone(name)


async def test_a_claim_outlives_its_pods(pods: Pods) -> None:
    claim = pods.name("claim")
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await pods.put(
        CLAIMS, {"kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": spec}
    )
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    mounts = [{"name": "v", "mountPath": "/cache"}]
    first = await pods.create(
        "p1", sh("echo kept > /cache/f", volumeMounts=mounts), volumes=volumes
    )
    await output(pods, first)
    await pods.delete(first)
    await pods.until_gone(first)
    second = await pods.create("p2", sh("cat /cache/f", volumeMounts=mounts), volumes=volumes)
    assert await output(pods, second) == "kept\n"
    bound = await pods.client.get(CLAIMS.path(NAMESPACE, claim))
    assert bound["status"]["phase"] == "Bound"


async def test_a_service_names_a_ready_pod(pods: Pods) -> None:
    service = pods.name("svc")
    labels = {"app": service}
    headless = {"clusterIP": "None", "selector": labels, "ports": [{"port": 80}]}
    await pods.put(SERVICES, {"kind": "Service", "metadata": {"name": service}, "spec": headless})
    script = f"until getent hosts {service}.{NAMESPACE}.svc; do sleep 0.1; done"
    client = await pods.create("client", sh(script))
    await pods.until_phase(client, "Running")
    server = await pods.create("server", sh("exec sleep 600"), metadata={"labels": labels})
    address = (await pods.until_phase(server, "Running"))["status"]["podIP"]
    assert (await output(pods, client)).split()[0] == address
    await pods.delete(server, grace_seconds=0)


async def test_the_hostname_resolves_to_the_pods_address(pods: Pods) -> None:
    name = await pods.create("self", sh("hostname; getent hosts $(hostname)"))
    lines = (await output(pods, name)).splitlines()
    address = (await pods.get(name))["status"]["podIP"]
    assert lines[0] == name
    assert lines[1].split()[0] == address


async def test_a_pod_that_asks_too_much_waits_and_says_why(pods: Pods) -> None:
    asks = {"resources": {"limits": {"own/thing": "1"}}}
    first = await pods.create("first", sh("exec sleep 600", **asks))
    await pods.until_phase(first, "Running")
    second = await pods.create("second", sh("true", **asks))
    words = "0/1 nodes are available: 1 Insufficient own/thing."
    assert await pods.until_event(second, "FailedScheduling") == words
    pod = await pods.until(second, lambda pod: bool(condition(pod, "PodScheduled")))
    scheduled = condition(pod, "PodScheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
    assert scheduled["message"] == words
    await pods.delete(first, grace_seconds=0)
    await pods.until_phase(second, "Succeeded")


async def test_gated_and_foreign_pods_are_left_alone(pods: Pods) -> None:
    gated = await pods.create("gated", sh("true"), schedulingGates=[{"name": "wait"}])
    foreign = await pods.create("foreign", sh("true"), schedulerName="another")
    await output(pods, await pods.create("ours", sh("true")))
    for name in (gated, foreign):
        assert "nodeName" not in (await pods.get(name))["spec"]
        await pods.delete(name)


async def test_a_converged_pod_costs_no_writes(pods: Pods) -> None:
    name = await pods.create("quiet", sh("exec sleep 600"))
    pod = await pods.until(name, lambda pod: condition(pod, "Ready").get("status") == "True")
    service = pods.name("noise")
    spec = {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}
    await pods.put(SERVICES, {"kind": "Service", "metadata": {"name": service}, "spec": spec})
    await output(pods, await pods.create("other", sh("true")))
    after = await pods.get(name)
    assert after["metadata"]["resourceVersion"] == pod["metadata"]["resourceVersion"]
    await pods.delete(name, grace_seconds=0)

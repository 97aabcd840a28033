"""The real kubectl and the real Helm, from end to end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from finetune_local import binaries


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifest(body: dict) -> str:
    return yaml.safe_dump(body)


async def test_apply_get_describe_explain_delete(api, widgets, widget, kubectl, namespace) -> None:
    n = ("-n", namespace)
    text = manifest(widget("a", size=3))
    assert "widget.conformance.example.com/a created" in ok(
        kubectl("apply", *n, "-f", "-", stdin=text)
    )
    assert "unchanged" in ok(kubectl("apply", *n, "-f", "-", stdin=text))
    changed = manifest(widget("a", size=4))
    assert "configured" in ok(kubectl("apply", *n, "-f", "-", stdin=changed))
    header, row = ok(kubectl("get", "wdg", *n)).splitlines()
    assert header.split() == ["NAME", "STATE", "SIZE", "AGE"]
    assert row.split()[:2] == ["a", "4"]
    assert "NOTE" in ok(kubectl("get", "wdg", "-o", "wide", *n))
    shown = json.loads(ok(kubectl("get", "widget/a", "-o", "json", *n)))
    assert shown["spec"]["size"] == 4
    assert re.search(r"Size: +4", ok(kubectl("describe", "widget", "a", *n)))
    assert "deleted" in ok(kubectl("delete", "widget", "a", *n))
    assert (await api.get(f"{widgets}/a")).status == 404


async def test_explain(widgets, kubectl) -> None:
    text = ok(kubectl("explain", "widget.spec"))
    assert "GROUP:      conformance.example.com" in text
    assert "What is wanted." in text
    assert "size\t<integer> -required-" in text
    assert "enum: Red, Blue" in text
    assert "tags\t<[]string>" in text
    pod = ok(kubectl("explain", "pod.spec.containers"))
    assert "List of containers belonging to the pod." in pod
    assert "image\t<string>" in pod


async def test_apply_refuses_unknown_and_wrong_fields(widgets, widget, kubectl, namespace) -> None:
    n = ("-n", namespace)
    unknown = kubectl("apply", *n, "-f", "-", stdin=manifest(widget("a", colour="Red")))
    assert unknown.returncode == 1
    assert 'unknown field "spec.colour"' in unknown.stderr
    wrong = kubectl("apply", *n, "-f", "-", stdin=manifest(widget("a", size=0)))
    assert 'The Widget "a" is invalid: spec.size: Invalid value: 0' in wrong.stderr
    loose = kubectl(
        "apply", *n, "--validate=warn", "-f", "-", stdin=manifest(widget("a", colour="Red"))
    )
    assert 'Warning: unknown field "spec.colour"' in loose.stderr
    assert loose.returncode == 0


async def test_server_side_apply(api, widgets, widget, kubectl, namespace) -> None:
    n = ("-n", namespace)
    apply = ("apply", "--server-side", *n, "-f", "-")
    text = manifest(widget("a", size=3))
    assert "serverside-applied" in ok(kubectl(*apply, stdin=text))
    await api.merge(f"{widgets}/a", {"spec": {"size": 5}}, fieldManager="editor")
    refused = kubectl(*apply, stdin=text)
    assert refused.returncode == 1
    assert 'conflict with "editor"' in refused.stderr
    ok(kubectl(*apply, "--force-conflicts", stdin=text))
    assert (await api.get(f"{widgets}/a")).body["spec"]["size"] == 3


async def test_moving_from_client_side_to_server_side_apply(
    api, widgets, widget, kubectl, namespace
) -> None:
    n = ("-n", namespace)
    ok(kubectl("apply", *n, "-f", "-", stdin=manifest(widget("a", size=3, limit=9))))
    ok(kubectl("apply", "--server-side", *n, "-f", "-", stdin=manifest(widget("a", size=4))))
    stored = (await api.get(f"{widgets}/a")).body
    assert stored["spec"]["size"] == 4
    assert "limit" not in stored["spec"]
    managers = {(m["manager"], m["operation"]) for m in stored["metadata"]["managedFields"]}
    assert ("kubectl", "Apply") in managers
    assert ("kubectl-client-side-apply", "Update") not in managers


async def test_dry_run_and_diff(api, widgets, widget, kubectl, namespace) -> None:
    n = ("-n", namespace)
    text = manifest(widget("a", size=3))
    done = kubectl("apply", "--dry-run=server", *n, "-f", "-", stdin=text)
    assert "created (server dry run)" in ok(done)
    assert (await api.get(f"{widgets}/a")).status == 404
    ok(kubectl("apply", *n, "-f", "-", stdin=text))
    diff = kubectl("diff", *n, "-f", "-", stdin=manifest(widget("a", size=4)))
    assert diff.returncode == 1
    assert "-  size: 3" in diff.stdout
    assert "+  size: 4" in diff.stdout


async def test_typed_create_commands(api, kubectl, namespace) -> None:
    n = ("-n", namespace)
    base = f"/api/v1/namespaces/{namespace}"
    ok(kubectl("create", "configmap", "m", "--from-literal=a=b", *n))
    assert (await api.get(f"{base}/configmaps/m")).body["data"] == {"a": "b"}
    ok(kubectl("create", "secret", "generic", "s", "--from-literal=a=b", *n))
    secret = (await api.get(f"{base}/secrets/s")).body
    assert (secret["data"], secret["type"]) == ({"a": "Yg=="}, "Opaque")
    ok(kubectl("create", "serviceaccount", "robot", *n))
    ok(kubectl("create", "role", "r", "--verb=get,list", "--resource=pods", *n))
    ok(kubectl("create", "rolebinding", "r", "--role=r", f"--serviceaccount={namespace}:robot", *n))
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    role = (await api.get(f"{rbac}/roles/r")).body
    assert role["rules"] == [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]
    binding = (await api.get(f"{rbac}/rolebindings/r")).body
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}
    ]
    token = ok(kubectl("create", "token", "robot", "--duration=15m", *n)).strip()
    assert (await api.as_token(token).get(f"{base}/pods")).status == 200
    assert (await api.as_token(token).get(f"{base}/secrets")).status == 403


async def test_patch_label_annotate_edit_wait(api, widgets, widget, kubectl, namespace) -> None:
    n = ("-n", namespace)
    await api.post(widgets, widget("a"))
    ok(kubectl("patch", "widget", "a", "--type=merge", "-p", '{"spec":{"size":2}}', *n))
    operation = '[{"op":"replace","path":"/spec/size","value":3}]'
    ok(kubectl("patch", "widget", "a", "--type=json", "-p", operation, *n))
    ok(kubectl("label", "widget", "a", "x=y", *n))
    ok(kubectl("annotate", "widget", "a", "x=y", *n))
    stored = (await api.get(f"{widgets}/a")).body
    assert stored["spec"]["size"] == 3
    assert stored["metadata"]["labels"] == stored["metadata"]["annotations"] == {"x": "y"}
    status = '{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Done"}]}}'
    arguments = ("--subresource=status", "--type=merge", "-p", status)
    ok(kubectl("patch", "widget", "a", *arguments, *n))
    assert "condition met" in ok(
        kubectl("wait", "widget/a", "--for=condition=Ready", "--timeout=20s", *n)
    )
    assert "condition met" in ok(
        kubectl("wait", "widget/a", "--for=jsonpath={.spec.size}=3", "--timeout=20s", *n)
    )


async def test_get_watches(api, widgets, widget, kubeconfig, namespace, tmp_path) -> None:
    await api.post(widgets, widget("a"))
    watching = await asyncio.create_subprocess_exec(
        *(str(binaries.kubectl()), "get", "widgets", "-n", namespace, "-w"),
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(kubeconfig)},
    )
    try:
        assert (await watching.stdout.readline()).decode().split()[:2] == ["NAME", "STATE"]
        assert (await watching.stdout.readline()).decode().split()[:2] == ["a", "1"]
        await api.merge(f"{widgets}/a", {"spec": {"size": 8}})
        assert (await watching.stdout.readline()).decode().split()[:2] == ["a", "8"]
    finally:
        watching.kill()
        await watching.wait()


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart with one of the kinds that an operator's chart brings."""
    path = tmp_path / "chart"
    (path / "templates").mkdir(parents=True)
    (path / "Chart.yaml").write_text(
        "apiVersion: v2\nname: demo\nversion: 0.1.0\nkubeVersion: '>=1.29.0-0'\n"
    )
    (path / "values.yaml").write_text("a: one\n")
    (path / "templates" / "all.yaml").write_text(
        """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {a: {{ .Values.a | quote }}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: {{ .Release.Name }}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: {{ .Release.Name }}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: 0
  selector: {matchLabels: {app: x}}
  template:
    metadata: {labels: {app: x}}
    spec: {containers: [{name: c, image: "example.com/a:1", env: [{name: A, value: b}]}]}
"""
    )
    return path


async def test_helm_installs_upgrades_and_uninstalls(
    api, namespace, kubeconfig, chart, tmp_path
) -> None:
    def helm(*arguments: str) -> str:
        return ok(
            subprocess.run(
                [str(binaries.helm()), "-n", namespace, *arguments],
                text=True,
                capture_output=True,
                check=False,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(tmp_path),
                    "KUBECONFIG": str(kubeconfig),
                },
            )
        )

    base = f"/api/v1/namespaces/{namespace}"
    assert "STATUS: deployed" in helm("install", "rel", str(chart))
    assert (await api.get(f"{base}/configmaps/rel")).body["data"] == {"a": "one"}
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/rel"
    assert (await api.get(deployment)).status == 200
    assert "REVISION: 2" in helm("upgrade", "rel", str(chart), "--set", "a=two")
    assert (await api.get(f"{base}/configmaps/rel")).body["data"] == {"a": "two"}
    assert "rel" in helm("list")
    assert "uninstalled" in helm("uninstall", "rel")
    assert (await api.get(f"{base}/configmaps/rel")).status == 404
    assert (await api.get(deployment)).status == 404

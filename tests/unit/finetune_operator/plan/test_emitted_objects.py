"""Every object of the golden shapes is one that a cluster takes, and none carries a secret."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from finetune_contract.runconfig import FILE_NAME, RunConfig
from support.operator.golden_cases import SHAPES, applied

HERE = Path(__file__).parent
KUBERNETES = "1.33"
Json = Any


def emitted() -> list[Any]:
    return [
        pytest.param(body, id=f"{shape}-{body['kind']}")
        for shape in SHAPES
        for body in applied(shape)
    ]


def of_kind(kind: str) -> list[Any]:
    return [p for p in emitted() if p.values[0]["kind"] == kind]


def templates(workload: Json) -> list[Json]:
    return [r["template"] for r in workload["spec"]["pytorchReplicaSpecs"].values()]


def pod(workload: Json, template: Json) -> Json:
    spec = {**template["spec"], "restartPolicy": "Never"}
    metadata = {**template["metadata"], "name": f"{workload['metadata']['name']}-master-0"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def containers(spec: Json) -> list[Json]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def pods(body: Json) -> list[Json]:
    """Return the specs of the pods that an object is, or is to make."""
    if body["kind"] == "Pod":
        return [body["spec"]]
    return [template["spec"] for template in templates(body)]


CORE = [p for p in emitted() if p.values[0]["kind"] != "PyTorchJob"]
WORKLOADS = of_kind("PyTorchJob")
CHECKS = of_kind("Pod")


@pytest.mark.parametrize("body", CORE)
def test_core_objects_pass_the_api_schema(body: Json) -> None:
    kubernetes_validate.validate(body, KUBERNETES, strict=True)


@pytest.mark.parametrize("body", WORKLOADS)
def test_pods_pass_the_api_schema(body: Json) -> None:
    for template in templates(body):
        kubernetes_validate.validate(pod(body, template), KUBERNETES, strict=True)


@pytest.mark.parametrize("body", WORKLOADS)
def test_pytorchjobs_pass_the_schema_of_training_operator(body: Json) -> None:
    schema = yaml.safe_load((HERE / "pytorchjob.schema.yaml").read_text())
    assert [e.message for e in Draft202012Validator(schema).iter_errors(body)] == []


@pytest.mark.parametrize("body", WORKLOADS + CHECKS)
def test_pods_obey_pod_security_restricted(body: Json) -> None:
    for spec in pods(body):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
        for container in containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
        kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
        allowed = {"configMap", "downwardAPI", "emptyDir", "projected", "secret"}
        assert kinds - allowed <= {"hostPath", "persistentVolumeClaim"}


@pytest.mark.parametrize("body", WORKLOADS + CHECKS)
def test_the_token_is_in_no_container_but_the_trainers(body: Json) -> None:
    for spec in pods(body):
        assert spec["automountServiceAccountToken"] is False
        mounted = [
            c["name"]
            for c in containers(spec)
            if any(m["name"] == "token" for m in c["volumeMounts"])
        ]
        assert mounted == ([] if body["kind"] == "Pod" else ["pytorch"])


@pytest.mark.parametrize("body", WORKLOADS + CHECKS)
def test_a_container_reads_secrets_from_files_only(body: Json) -> None:
    for spec in pods(body):
        secrets = {v["name"]: v["secret"] for v in spec["volumes"] if "secret" in v}
        for container in containers(spec):
            assert "envFrom" not in container
            assert all(set(entry) == {"name", "value"} for entry in container["env"])
            for mount in container["volumeMounts"]:
                if mount["name"] in secrets:
                    assert secrets[mount["name"]]["defaultMode"] == 0o440
                    assert mount["readOnly"] is True
                    part = mount["name"].removesuffix("-credentials")
                    assert mount["mountPath"] == f"/etc/finetune/credentials/{part}"


@pytest.mark.parametrize("body", WORKLOADS + CHECKS)
def test_what_runs_rewards_has_no_secret_and_writes_to_nothing_that_others_keep(body: Json) -> None:
    for spec in pods(body):
        volumes = {v["name"]: v for v in spec["volumes"]}
        for container in containers(spec):
            if container["name"] != "rewards":
                continue
            assert not any("finetune_trainer" in word for word in container["command"])
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            for mount in container["volumeMounts"]:
                source = volumes[mount["name"]]
                assert {"configMap", "downwardAPI", "emptyDir"} & source.keys()
                assert mount.get("readOnly") or source["emptyDir"]["medium"] == "Memory"
                if "configMap" in source:
                    assert "subPath" in mount, "a change must not reach a run"


@pytest.mark.parametrize("body", WORKLOADS + CHECKS)
def test_volumes_and_mounts_belong_together(body: Json) -> None:
    for spec in pods(body):
        names = [v["name"] for v in spec["volumes"]]
        mounts = [c["volumeMounts"] for c in containers(spec)]
        assert sorted({m["name"] for own in mounts for m in own}) == sorted(names)
        for own in mounts:
            paths = [m["mountPath"] for m in own]
            assert len(set(paths)) == len(paths)
        if "initContainers" not in spec:
            assert [m["name"] for m in mounts[0]] == names


@pytest.mark.parametrize("body", of_kind("ConfigMap"))
def test_a_config_map_holds_a_run_config_that_the_trainer_accepts(body: Json) -> None:
    config = RunConfig.model_validate_json(body["data"][FILE_NAME])
    assert config.layout.heartbeat is not None
    assert config.layout.heartbeat.lease == body["metadata"]["name"]
    assert body["immutable"] is True


@pytest.mark.parametrize("body", emitted())
def test_every_child_goes_with_its_job_and_does_not_hold_it_up(body: Json) -> None:
    (owner,) = body["metadata"]["ownerReferences"]
    assert owner["kind"] == "FineTuneJob"
    assert owner["controller"] is True
    assert owner["blockOwnerDeletion"] is False


@pytest.mark.parametrize("body", of_kind("Role"))
def test_a_job_may_renew_its_lease_and_nothing_else(body: Json) -> None:
    (rule,) = body["rules"]
    assert rule["resources"] == ["leases"]
    assert rule["resourceNames"] == [body["metadata"]["name"]]
    assert set(rule["verbs"]) <= {"get", "patch"}

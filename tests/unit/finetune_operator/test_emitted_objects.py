"""Every object in the golden cases is one that a cluster takes, and none carries a secret."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from finetune_contract.runconfig import FILE_NAME, RunConfig

HERE = Path(__file__).parent
GOLDEN = HERE.parents[1] / "golden"
KUBERNETES = "1.33"
Json = Any


def emitted() -> list[Any]:
    found = []
    for path in sorted(GOLDEN.glob("*/objects.yaml")):
        for body in yaml.safe_load(path.read_text()).get("apply", []):
            found.append(pytest.param(body, id=f"{path.parent.name}-{body['kind']}"))
    return found


def of_kind(kind: str) -> list[Any]:
    return [p for p in emitted() if p.values[0]["kind"] == kind]


def templates(workload: Json) -> list[Json]:
    return [r["template"] for r in workload["spec"]["pytorchReplicaSpecs"].values()]


def pod(workload: Json, template: Json) -> Json:
    spec = {**template["spec"], "restartPolicy": "Never"}
    metadata = {**template["metadata"], "name": f"{workload['metadata']['name']}-master-0"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


CORE = [p for p in emitted() if p.values[0]["kind"] != "PyTorchJob"]
WORKLOADS = of_kind("PyTorchJob")


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


@pytest.mark.parametrize("body", WORKLOADS)
def test_pods_obey_pod_security_restricted(body: Json) -> None:
    for template in templates(body):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
        kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
        allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
        assert kinds - allowed <= {"hostPath"}


@pytest.mark.parametrize("body", WORKLOADS)
def test_the_token_is_in_one_container_only(body: Json) -> None:
    for template in templates(body):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        mounted = [
            c["name"]
            for c in spec["containers"]
            if any(m["name"] == "token" for m in c["volumeMounts"])
        ]
        assert mounted == ["pytorch"]


@pytest.mark.parametrize("body", WORKLOADS)
def test_a_container_reads_secrets_from_files_only(body: Json) -> None:
    for template in templates(body):
        spec = template["spec"]
        (container,) = spec["containers"]
        assert "envFrom" not in container
        assert all(set(entry) == {"name", "value"} for entry in container["env"])
        secrets = {v["name"]: v["secret"] for v in spec["volumes"] if "secret" in v}
        mounts = {m["name"]: m for m in container["volumeMounts"]}
        for name, source in secrets.items():
            assert source["defaultMode"] == 0o440
            assert mounts[name]["readOnly"] is True
            part = name.removesuffix("-credentials")
            assert mounts[name]["mountPath"] == f"/etc/finetune/credentials/{part}"


@pytest.mark.parametrize("body", WORKLOADS)
def test_volumes_and_mounts_belong_together(body: Json) -> None:
    for template in templates(body):
        spec = template["spec"]
        (container,) = spec["containers"]
        mounts = container["volumeMounts"]
        assert [m["name"] for m in mounts] == [v["name"] for v in spec["volumes"]]
        paths = [m["mountPath"] for m in mounts]
        assert len(set(paths)) == len(paths)


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

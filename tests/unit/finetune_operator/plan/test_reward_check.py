"""The pod that tries rewards: what it needs, what its containers see, where it may run."""

import json
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_operator.plan.reward_check import reward_check
from support.operator.reward_trials import grpo, tried_by
from support.operator.values import UID, pod_spec

OWN = {"key": "team", "operator": "Exists"}
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def asking_for(limits: dict[str, Any], **workers: Any) -> FineTuneJob:
    return grpo(workers={"resources": {"limits": limits}, **workers})


def tolerations(of: FineTuneJob) -> Any:
    return tried_by(of)["spec"].get("tolerations")


def test_a_service_account_is_made_unless_the_job_names_one() -> None:
    for workers, account in (({}, ["ServiceAccount"]), ({"serviceAccountName": "theirs"}, [])):
        wanted = reward_check(grpo(workers=workers), "trainer:1")
        assert wanted is not None
        assert [body["kind"] for body in wanted.prepared] == [*account, "NetworkPolicy"]


def test_rows_of_every_file_are_read() -> None:
    files = [{"uri": "s3://d/a.jsonl"}, {"uri": "s3://d/b.jsonl"}]
    columns = {"prompt": "q"}
    of = grpo(data={"train": files, "columns": columns})
    (rows,) = tried_by(of)["spec"]["initContainers"]
    *sources, named, mapped = rows["command"][-6:]
    assert sources[::2] == ["--source", "--source"]
    assert [json.loads(source)["uri"] for source in sources[1::2]] == [f["uri"] for f in files]
    assert (named, json.loads(mapped)) == ("--columns", columns)


def test_rows_are_read_with_the_jobs_volumes_and_code_without() -> None:
    volume = {"name": "d", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "rows"}}
    spec = tried_by(grpo(workers={"volumes": [volume]}))["spec"]
    mounts = {
        c["name"]: [m["mountPath"] for m in c["volumeMounts"]]
        for c in (*spec["initContainers"], *spec["containers"])
    }
    assert "/data" in mounts["rows"]
    assert "/data" not in mounts["rewards"]


def test_taints_of_the_nodes_with_devices_are_tolerated_as_the_attempts_tolerate_them() -> None:
    """Admission adds this to pods that ask for the device; the trial's asks for none."""
    gpus = {"nvidia.com/gpu": 1}
    assert tolerations(asking_for(gpus)) == [GPU_TOLERATION]
    assert tolerations(asking_for({"cpu": 1})) is None
    (own, gpu) = tolerations(asking_for(gpus, tolerations=[OWN]))
    assert own["key"] == "team"
    assert gpu == GPU_TOLERATION
    assert "tolerations" not in pod_spec(asking_for(gpus)), "admission adds it"


def test_the_garbage_collector_takes_the_pod_with_its_job() -> None:
    (owner,) = tried_by(grpo())["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneJob", UID, True)

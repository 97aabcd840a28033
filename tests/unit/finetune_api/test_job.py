"""What can change and when; how jobs are parsed; what the generated schema must be."""

import copy

import pytest

from finetune_api.crd import custom_resource_definition, schema
from finetune_api.job import FineTuneJob
from finetune_api.validation import InvalidJob, parse, validate
from kube_schema.structural import apply_defaults

JOB = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "job", "namespace": "team", "uid": "u-1", "generation": 2},
    "spec": {
        "model": {"uri": "s3://demo/model"},
        "data": {"train": [{"uri": "s3://demo/train.jsonl"}]},
        "output": {"uri": "s3://demo/out"},
    },
}
ATTEMPT = {
    "number": 1,
    "state": "Running",
    "generation": 1,
    "recipeDigest": "sha256:0",
    "image": "trainer:1",
    "microBatchSize": 1,
    "startTime": "2026-01-01T00:00:00Z",
}


def _stored(**status: object) -> dict:
    body = copy.deepcopy(JOB)
    apply_defaults(schema(), body)
    if status:
        body["status"] = status
    return body


CHANGES = {
    "model": {"uri": "s3://demo/other"},
    "data": {"train": [{"uri": "s3://demo/other.jsonl"}]},
    "lora": {"rank": 8},
    "training": {"epochs": 2},
    "memory": {"zeroStage": 3},
    "workers": {"replicas": 2},
    "output": {"uri": "s3://demo/elsewhere"},
}


@pytest.mark.parametrize("stanza", CHANGES)
def test_a_stanza_is_frozen_once_an_attempt_started(stanza: str) -> None:
    changed = copy.deepcopy(JOB)
    changed["spec"][stanza] = CHANGES[stanza]
    assert validate(changed, _stored()) == []
    assert validate(changed, _stored(attempts=[])) == []
    changed["status"] = {"attempts": [ATTEMPT]}
    (error,) = validate(changed, _stored(attempts=[ATTEMPT]))
    assert error.path == f"spec.{stanza}"
    assert "create a new job instead" in error.message


def test_run_policy_can_change_while_an_attempt_runs() -> None:
    changed = copy.deepcopy(JOB)
    changed["spec"]["runPolicy"] = {"suspend": True, "maxAttempts": 9}
    changed["status"] = {"attempts": [ATTEMPT]}
    assert validate(changed, _stored(attempts=[ATTEMPT])) == []


def test_parse_applies_the_schemas_defaults() -> None:
    job = parse(JOB)
    assert (job.name, job.namespace, job.uid, job.generation) == ("job", "team", "u-1", 2)
    assert job.spec == FineTuneJob.model_validate(_stored()).spec
    assert job.spec.training.learning_rate == 2e-4
    assert "training" not in JOB["spec"], "the caller's body stays as it was"


def test_parse_refuses_with_every_field() -> None:
    body = copy.deepcopy(JOB)
    body["spec"]["lora"] = {"rank": 0, "alpha": 0}
    with pytest.raises(InvalidJob) as caught:
        parse(body)
    assert [e.path for e in caught.value.errors] == ["spec.lora.alpha", "spec.lora.rank"]


@pytest.mark.parametrize(
    "body", [None, [], "text", {}, {**JOB, "kind": "Job"}, {**JOB, "metadata": 1}]
)
def test_what_is_no_job_is_refused_without_a_crash(body: object) -> None:
    assert validate(body)


@pytest.mark.parametrize(
    ("limits", "processes"), [(None, 1), ({"cpu": 4}, 1), ({"nvidia.com/gpu": "8"}, 8)]
)
def test_one_process_per_gpu(limits: dict | None, processes: int) -> None:
    body = copy.deepcopy(JOB)
    body["spec"]["workers"] = {"resources": {"limits": limits}} if limits else {}
    assert parse(body).spec.workers.processes_per_worker == processes


def _walk(node: dict, path: str):
    for name, sub in node.get("properties", {}).items():
        yield f"{path}.{name}", sub
        yield from _walk(sub, f"{path}.{name}")
    if "items" in node:
        yield from _walk(node["items"], f"{path}[]")


def test_every_field_is_described_and_every_string_and_list_of_the_spec_is_bounded() -> None:
    for path, node in _walk(schema()["properties"]["spec"], "spec"):
        assert node.get("description"), path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        for free in (node, node.get("additionalProperties", {})):
            if free.get("x-kubernetes-preserve-unknown-fields"):
                # Lists hold all jobs, and no parser reads all depths that an API server stores.
                assert (free.get("maxItems"), free.get("maxProperties")) == (0, 0), path
                assert "maxLength" in free, path


def test_the_crd_is_namespaced_with_a_status_subresource() -> None:
    spec = custom_resource_definition()["spec"]
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["shortNames"] == ["ftj"]
    assert spec["versions"][0]["subresources"] == {"status": {}}

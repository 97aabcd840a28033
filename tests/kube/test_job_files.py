"""Server and `finetune validate` refuse the same files, by the same fields, in the same words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from finetune_api.crd import custom_resource_definition
from finetune_api.job import GROUP, PLURAL, VERSION
from finetune_api.validation import validate
from finetune_api.yaml_text import load_documents
from support.operator.foreign_jobs import FOREIGN

JOBS = Path(__file__).parents[1] / "jobs"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def jobs(api: Any, namespace: str, eventually: Any) -> str:
    """The path of the namespace's FineTuneJobs."""
    made = await api.post(CRDS, custom_resource_definition())
    assert made.status in (201, 409), made.body
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"

    async def served() -> bool:
        return (await api.get(path)).status == 200

    await eventually(served, "FineTuneJobs")
    return path


def _body(path: Path) -> dict[str, Any]:
    (body,) = load_documents(path.read_text())
    return body


def _refused_fields(status: dict[str, Any]) -> set[tuple[str, str]]:
    unknown = re.findall(r'unknown field "([^"]+)"', status["message"])
    if unknown:
        return {(field, "unknown field") for field in unknown}
    return {
        ("" if cause["field"] == "<nil>" else cause["field"], cause["message"])
        for cause in status["details"]["causes"]
    }


@pytest.mark.parametrize("path", sorted(JOBS.glob("bad/*.yaml")), ids=lambda p: p.stem)
async def test_bad_file_is_refused_as_by_validate(api: Any, jobs: str, path: Path) -> None:
    answer = await api.post(jobs, _body(path), dryRun="All", fieldValidation="Strict")
    assert answer.status in (400, 422)
    expected = {(error.path, error.message) for error in validate(_body(path))}
    assert _refused_fields(answer.body) == expected


@pytest.mark.parametrize("text", [text for text, _ in FOREIGN], ids=range(len(FOREIGN)))
async def test_a_file_for_other_tools_is_refused_by_a_server_too(
    api: Any, jobs: str, text: str
) -> None:
    [body] = load_documents(text)
    answer = await api.post(jobs, body, dryRun="All", fieldValidation="Strict")
    assert answer.status in (400, 422), answer.body
    told = {(error.path, error.message) for error in validate(body)}
    if body.get("kind"):
        assert _refused_fields(answer.body) <= told, "and more is told here, at once"


@pytest.mark.parametrize("path", sorted(JOBS.glob("good/*.yaml")), ids=lambda p: p.stem)
async def test_good_file_is_accepted(api: Any, jobs: str, path: Path) -> None:
    answer = await api.post(jobs, _body(path), dryRun="All", fieldValidation="Strict")
    assert answer.status == 201, answer.body


async def test_the_spec_is_frozen_once_an_attempt_stands_in_status(api: Any, jobs: str) -> None:
    body = _body(JOBS / "good" / "shortest.yaml")
    name = f"{jobs}/{body['metadata']['name']}"
    await api.post(jobs, body)
    assert (await api.merge(name, {"spec": {"lora": {"rank": 8}}})).status == 200
    attempt = {
        "number": 1,
        "state": "Starting",
        "generation": 1,
        "recipeDigest": "sha256:0",
        "image": "trainer:1",
        "microBatchSize": 1,
        "startTime": "2026-01-01T00:00:00Z",
    }
    written = await api.merge(f"{name}/status", {"status": {"attempts": [attempt]}})
    assert written.status == 200, written.body
    refused = await api.merge(name, {"spec": {"lora": {"rank": 4}}})
    assert refused.status == 422
    ((field, message),) = _refused_fields(refused.body)
    assert field == "spec.lora"
    assert "create a new job instead" in message
    policy = {"spec": {"runPolicy": {"suspend": True}}}
    assert (await api.merge(name, policy)).status == 200


async def test_kubectl_explains_every_stanza(kubectl: Any, jobs: str) -> None:
    explained = kubectl("explain", f"{PLURAL}.spec", "--recursive")
    assert explained.returncode == 0, explained.stderr
    for stanza in ("model", "data", "lora", "training", "memory", "workers", "output", "runPolicy"):
        assert stanza in explained.stdout

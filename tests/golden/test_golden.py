"""What the operator makes of a job and of what it sees: no cluster, no clock, no mocks.

Each directory is a case: job.yaml is the job as stored, observed.yaml the cluster's objects and the
time; objects.yaml and status.yaml are what must come out. `UPDATE_GOLDEN=1 pytest tests/golden`
writes those two anew; read the difference before you commit it.

In job.yaml and observed.yaml AS_PLANNED stands for the digest of what tries the rewards, as the
case reward_check has it: those cases' jobs have the same spec. AS_PLANNED_WITH_GPUS is that of
reward_check_with_gpus.
"""

import dataclasses
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.crd import schema
from finetune_api.job import FineTuneJob
from finetune_operator.job.names import DIGEST_ANNOTATION, content_digest
from finetune_operator.job.parse import Parser
from finetune_operator.job.workers import image
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Decision
from finetune_operator.judge.observe import observe
from finetune_operator.judge.observed import Observed
from finetune_operator.judge.status import status_of
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.plan.reward_check import reward_check
from finetune_operator.settings import Settings
from kube_schema.structural import validate
from support.backends import ONE_OBJECT, TWO_OBJECTS, Played

CASES = sorted(p.parent for p in Path(__file__).parent.glob("*/job.yaml"))
PLANNED_BY = {
    "AS_PLANNED": "reward_check",
    "AS_PLANNED_WITH_GPUS": "reward_check_with_gpus",
}
SETTINGS = Settings(trainer_image="registry.example/trainer:1")
Json = Any


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def read(path: Path, backend: Played = ONE_OBJECT) -> Json:
    """Read YAML in the words of a backend; times stay the texts that an API has."""
    text = path.read_text()
    return _texts(yaml.safe_load(text if backend is ONE_OBJECT else in_other_words(text)))


def load(case: Path, backend: Played = ONE_OBJECT) -> tuple[FineTuneJob, Observed, datetime]:
    job = Parser().parse(read(case / "job.yaml", backend))
    seen = read(case / "observed.yaml", backend)
    children = seen.get("children", [])
    if backend is not ONE_OBJECT:
        children = made_by_the_other(children)
    observed = observe(job, children, seen.get("departed", []), backend)
    observed = dataclasses.replace(observed, warnings=seen.get("warnings", {}))
    return job, observed, datetime.fromisoformat(seen["now"])


def _texts(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, str) and value in PLANNED_BY:
        return _planned(PLANNED_BY[value])
    return value


def _planned(case: str) -> str:
    objects = yaml.safe_load((Path(__file__).parent / case / "objects.yaml").read_text())
    (pod,) = (body for body in objects["apply"] if body["kind"] == "Pod")
    return str(pod["metadata"]["annotations"][DIGEST_ANNOTATION])


def decided(
    job: FineTuneJob, observed: Observed, now: datetime, backend: Played = ONE_OBJECT
) -> Decision:
    trial = reward_check(job, image(job, SETTINGS.trainer_image))
    digest = content_digest(trial.started[-1]) if trial else None
    return decide(job, observed, now, SETTINGS, backend, digest)


def objects_of(job: FineTuneJob, decision: Decision, backend: Played) -> Json:
    out: dict[str, Json] = {"delete": [f"{c.kind}/{c.name}" for c in decision.delete]}
    objects = reward_check(job, image(job, SETTINGS.trainer_image)) if decision.run_check else None
    if decision.run is not None:
        objects = attempt_objects(job, decision.run, backend, SETTINGS.heartbeat_seconds)
    if objects is not None:
        out["apply"] = [*objects.prepared, *objects.started]
    out["lookAgainAfterSeconds"] = decision.after.total_seconds() if decision.after else None
    return out


def outcome(case: Path, backend: Played = ONE_OBJECT) -> tuple[Json, Json]:
    job, observed, now = load(case, backend)
    decision = decided(job, observed, now, backend)
    status = status_of(job, observed, decision, now, SETTINGS)
    return (
        objects_of(job, decision, backend),
        status.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def check(path: Path, value: Json) -> None:
    text = yaml.dump(value, Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text, f"{path} differs; UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_objects_and_status(case: Path) -> None:
    objects, status = outcome(case)
    check(case / "objects.yaml", objects)
    check(case / "status.yaml", status)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_status_can_be_stored(case: Path) -> None:
    body = read(case / "job.yaml")
    body["status"] = read(case / "status.yaml")
    errors = [e for e in validate(schema(), body) if e.path.startswith("status")]
    assert errors == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_outcome_of_the_outcome_is_the_same(case: Path) -> None:
    """With the status stored and nothing else changed, a second look changes nothing."""
    job, observed, now = load(case)
    first = status_of(job, observed, decided(job, observed, now), now, SETTINGS)
    again = job.model_copy(update={"status": first})
    second = status_of(again, observed, decided(again, observed, now), now, SETTINGS)
    assert second == first


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_another_backend_changes_words_and_its_own_objects_alone(case: Path) -> None:
    objects, status = outcome(case, TWO_OBJECTS)
    assert status == read(case / "status.yaml", TWO_OBJECTS)
    usual = read(case / "objects.yaml", TWO_OBJECTS)
    made = [f"{body['kind']}/{body['metadata']['name']}" for body in objects.get("apply", [])]
    names = [f"{body['kind']}/{body['metadata']['name']}" for body in usual.get("apply", [])]
    assert made == with_templates(names)
    assert sorted(objects["delete"]) == sorted(with_templates(usual["delete"]))


def in_other_words(text: str) -> str:
    """Spell what was written for a PyTorchJob as the other backend would."""
    text = re.sub(r"\b(bot-a\d+)-master-0", r"\1-node-0", text)
    text = re.sub(r"\b(bot-a\d+)-worker-(\d+)", lambda m: f"{m[1]}-node-{int(m[2]) + 1}", text)
    text = text.replace("kubeflow.org/v1", "trains.example/v2")
    return text.replace("PyTorchJob", TWO_OBJECTS.workload).replace("pytorch", "node")


def made_by_the_other(children: list[Json]) -> list[Json]:
    """Let workloads tell their end as the other backend does, and stand beside their templates."""
    found = []
    for body in children:
        found.append(body)
        if body["kind"] == TWO_OBJECTS.workload:
            well = ONE_OBJECT.outcome(body)
            found[-1] = {**body, "status": {} if well is None else TWO_OBJECTS.ended(well)}
            metadata = {**body["metadata"], "uid": f"{body['metadata']['uid']}-template"}
            found.append({**body, "kind": "TrainTemplate", "metadata": metadata})
    return found


def with_templates(names: list[str]) -> list[str]:
    """Put its template before each workload, by kind and name."""
    pairs = [(kind, name) for kind, _, name in (one.partition("/") for one in names)]
    both = {TWO_OBJECTS.workload: ["TrainTemplate", TWO_OBJECTS.workload]}
    return [f"{kind}/{name}" for own, name in pairs for kind in both.get(own, [own])]

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
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.crd import schema
from finetune_api.job import FineTuneJob
from finetune_operator.job.names import HASH_ANNOTATION
from finetune_operator.job.parse import Parser
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Decision
from finetune_operator.judge.observe import observe
from finetune_operator.judge.observed import Observed
from finetune_operator.judge.status import status_of
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.plan.backends.pytorchjob import PyTorchJob
from finetune_operator.settings import Settings
from kube_schema.structural import validate

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


def read(path: Path) -> Json:
    """Read YAML; times stay the texts that an API has."""
    return _texts(yaml.safe_load(path.read_text()))


def load(case: Path) -> tuple[FineTuneJob, Observed, datetime]:
    job = Parser().parse(read(case / "job.yaml"))
    seen = read(case / "observed.yaml")
    backend = PyTorchJob()
    observed = observe(job, seen.get("children", []), seen.get("departed", []), backend)
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
    return str(pod["metadata"]["annotations"][HASH_ANNOTATION])


def objects_of(job: FineTuneJob, decision: Decision) -> Json:
    out: dict[str, Json] = {"delete": [f"{c.kind}/{c.name}" for c in decision.delete]}
    if decision.run is not None:
        objects = attempt_objects(job, decision.run, PyTorchJob(), SETTINGS.heartbeat_seconds)
        out["apply"] = [*objects.prepared, objects.workload]
    if decision.run_check is not None:
        out["apply"] = [*decision.run_check.prepared, decision.run_check.pod]
    out["lookAgainAfterSeconds"] = decision.after.total_seconds() if decision.after else None
    return out


def outcome(case: Path) -> tuple[Json, Json]:
    job, observed, now = load(case)
    decision = decide(job, observed, now, SETTINGS)
    status = status_of(job, observed, decision, now, SETTINGS)
    return (
        objects_of(job, decision),
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
    decision = decide(job, observed, now, SETTINGS)
    first = status_of(job, observed, decision, now, SETTINGS)
    again = job.model_copy(update={"status": first})
    assert (
        status_of(again, observed, decide(again, observed, now, SETTINGS), now, SETTINGS) == first
    )

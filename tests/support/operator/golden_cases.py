"""The golden cases: what is given, what the operator makes of it, and what must come out.

tests/golden/README.md says how a case is written.
"""

import dataclasses
import json
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from finetune_api.job import FineTuneJob
from finetune_contract.model import sha256_digest
from finetune_contract.progress import ANNOTATION as PROGRESS_ANNOTATION
from finetune_contract.runconfig import ATTEMPT_VARIABLE, FILE_NAME
from finetune_operator.job.names import (
    ATTEMPT_LABEL,
    DIGEST_ANNOTATION,
    attempt_name,
    content_digest,
)
from finetune_operator.job.parse import Parser
from finetune_operator.job.workers import image
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Decision
from finetune_operator.judge.status import status_of
from finetune_operator.observe.observe import observe
from finetune_operator.observe.observed import Observed
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.plan.reward_check import reward_check
from finetune_operator.settings import Settings
from support.operator.backends import ONE_OBJECT, TWO_OBJECTS, Played
from support.operator.patches import diff, merge

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "cases").glob("*.yaml"))
SHAPES = sorted(path.stem for path in (GOLDEN / "shapes").glob("*.yaml"))
SETTINGS = Settings(trainer_image="registry.example/trainer:1")
TOLD_AS_JSON = ("message", PROGRESS_ANNOTATION)
DIGESTS = {
    FILE_NAME: "OF_THE_RUN_CONFIG",
    "rewards.json": "OF_THE_REWARDS",
    "finetune.dev/rewards": "OF_THE_REWARDS",
}
PLANNED_BY = {"AS_PLANNED": "reward_check", "AS_PLANNED_WITH_GPUS": "reward_check_with_gpus"}
Json = Any


def case_path(case: str) -> Path:
    return GOLDEN / "cases" / f"{case}.yaml"


def shape_path(shape: str) -> Path:
    return GOLDEN / "shapes" / f"{shape}.yaml"


def given(case: str, backend: Played = ONE_OBJECT) -> Json:
    """Return the job, what is seen in a backend's words, and the shape of what is applied."""
    parts = _texts(_built(case_path(case)))
    return parts if backend is ONE_OBJECT else _made_by_the_other(in_other_words(parts))


def load(case: str, backend: Played = ONE_OBJECT) -> tuple[FineTuneJob, Observed, datetime]:
    """Return what the operator decides on: the job, the cluster's objects and the time."""
    parts = given(case, backend)
    job = Parser().parse(parts["job"])
    seen = parts["seen"]
    observed = observe(job, seen.get("children", []), seen.get("departed", []), backend)
    said = seen.get("warnings")
    observed = dataclasses.replace(observed, warnings=said or {}, looked=said is not None)
    return job, observed, datetime.fromisoformat(seen["now"])


def decision_and_status(
    job: FineTuneJob, observed: Observed, now: datetime, backend: Played = ONE_OBJECT
) -> tuple[Decision, Json]:
    """Return what one pass decides, and the status as it is stored."""
    trial = reward_check(job, image(job, SETTINGS.trainer_image))
    digest = content_digest(trial.started[-1]) if trial else None
    decision = decide(job, observed, now, SETTINGS, backend, digest)
    status = status_of(job, observed, decision, now, SETTINGS)
    return decision, status.model_dump(mode="json", by_alias=True, exclude_none=True)


def status(case: str, backend: Played = ONE_OBJECT) -> Json:
    """Return the status that a case ends with."""
    return decision_and_status(*load(case, backend), backend)[1]


def deleted(case: str, backend: Played = ONE_OBJECT) -> list[str]:
    """Return kind and name of the objects that a case deletes."""
    decision, _ = decision_and_status(*load(case, backend), backend)
    return [f"{child.kind}/{child.name}" for child in decision.delete]


def applied(case: str, backend: Played = ONE_OBJECT) -> list[Json]:
    """Return the objects that a case applies, in their order."""
    job, observed, now = load(case, backend)
    decision, _ = decision_and_status(job, observed, now, backend)
    objects = reward_check(job, image(job, SETTINGS.trainer_image)) if decision.run_check else None
    if decision.run is not None:
        objects = attempt_objects(job, decision.run, backend, SETTINGS.heartbeat_seconds)
    return [] if objects is None else [*objects.prepared, *objects.bound, *objects.started]


def in_other_words(value: Json) -> Json:
    """Spell what was written for a PyTorchJob as the other backend would."""
    text = json.dumps(value)
    text = re.sub(r"\b(bot-a\d+)-master-0", r"\1-node-0", text)
    text = re.sub(r"\b(bot-a\d+)-worker-(\d+)", lambda m: f"{m[1]}-node-{int(m[2]) + 1}", text)
    text = text.replace("kubeflow.org/v1", "trains.example/v2")
    return json.loads(text.replace("PyTorchJob", TWO_OBJECTS.workload).replace("pytorch", "node"))


def _made_by_the_other(parts: Json) -> Json:
    """Let workloads tell their end as the other backend does, and stand beside their templates."""
    found = []
    for body in parts["seen"].get("children", []):
        found.append(body)
        if body["kind"] == TWO_OBJECTS.workload:
            well = ONE_OBJECT.outcome(body)
            found[-1] = {**body, "status": {} if well is None else TWO_OBJECTS.ended(well)}
            metadata = {**body["metadata"], "uid": f"{body['metadata']['uid']}-template"}
            found.append({**body, "kind": "TrainTemplate", "metadata": metadata})
    return {**parts, "seen": {**parts["seen"], "children": found}}


def outcome(case: str) -> Json:
    """Return what one pass does, told by what differs from the shape and from the stored status."""
    parts = given(case)
    decision, new_status = decision_and_status(*load(case))
    out = {
        "delete": deleted(case),
        "apply": diff(_shape(parts), [_without_digest(body) for body in in_full(case)]),
        "lookAgainAfterSeconds": decision.after.total_seconds() if decision.after else None,
        "status": diff(parts["job"].get("status", {}), new_status),
    }
    return {key: value for key, value in out.items() if value not in ([], {}, None)}


def in_full(case: str) -> list[Json]:
    """Return a case's objects as its shape has them: each RunConfig parsed, digests named."""
    objects = applied(case)
    told = [body.get("data") or body["metadata"].get("annotations", {}) for body in objects]
    digests = {
        sha256_digest(text.encode()): name
        for texts in told
        for key, name in DIGESTS.items()
        if (text := texts.get(key))
    }
    return [_named(_opened(body), digests) for body in objects]


def dump(value: Json) -> str:
    return yaml.dump(
        value,
        Dumper=_Plain,
        sort_keys=False,
        width=100,
        allow_unicode=True,
        default_flow_style=None,
    )


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@cache
def _built(path: Path) -> Json:
    own = next(yaml.safe_load_all(path.read_text()))
    base = own.pop("given", None)
    return own if base is None else merge(_built(GOLDEN / "given" / f"{base}.yaml"), own)


def _shape(parts: Json) -> list[Json]:
    """Return the objects of the case's shape, as the case's attempt would have them."""
    if "shape" not in parts:
        return []
    objects = yaml.safe_load(shape_path(parts["shape"]).read_text())
    number = parts.get("attempt", 1)
    return [_without_digest(_renumbered(body, parts["job"], number)) for body in objects]


def _renumbered(value: Json, job: Json, number: int) -> Json:
    """Return what attempt 1 has as attempt `number` has it."""
    if isinstance(value, dict):
        new = {key: _renumbered(item, job, number) for key, item in value.items()}
        of_the_number = "value" if new.get("name") == ATTEMPT_VARIABLE else "attempt"
        numbers = (of_the_number, ATTEMPT_LABEL)
        return new | {k: type(new[k])(number) for k in numbers if k in new}
    if isinstance(value, list):
        return [_renumbered(item, job, number) for item in value]
    name = job["metadata"]["name"]
    return attempt_name(name, number) if value == attempt_name(name, 1) else value


def _opened(body: Json) -> Json:
    """Return an object with its RunConfig parsed, so that a difference in it is a small one."""
    text = body.get("data", {}).get(FILE_NAME)
    if text is None:
        return body
    config = json.loads(text)
    assert text == json.dumps(config, sort_keys=True, separators=(",", ":"))
    return {**body, "data": {**body["data"], FILE_NAME: config}}


def _named(value: Json, digests: dict[str, str]) -> Json:
    """Return what is applied without the digests that follow from it: a digest of another text
    than is told would stand out."""
    if isinstance(value, dict):
        return {key: _named(item, digests) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, digests) for item in value]
    return digests.get(value, value) if isinstance(value, str) else value


def _without_digest(body: Json) -> Json:
    """Return an object without the digest of its content: where that differs, so does this."""
    return merge(body, {"metadata": {"annotations": {DIGEST_ANNOTATION: None}}})


@cache
def _planned(case: str) -> str:
    (pod,) = (body for body in applied(case) if body["kind"] == "Pod")
    return str(pod["metadata"]["annotations"][DIGEST_ANNOTATION])


def _texts(value: Json) -> Json:
    """Return what is given as a cluster has it: times, JSON and digests are texts."""
    if isinstance(value, dict):
        return {
            key: json.dumps(item)
            if key in TOLD_AS_JSON and isinstance(item, dict)
            else _texts(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, str) and value in PLANNED_BY:
        return _planned(PLANNED_BY[value])
    return value

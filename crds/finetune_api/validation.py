"""Validate and parse a FineTuneJob exactly as an API server with the CRD would."""

from __future__ import annotations

import copy
from typing import Any

from finetune_api import job
from finetune_api.crd import schema
from kube_schema.field_errors import FieldError, Json
from kube_schema.structural import apply_defaults, copied, knows, prune
from kube_schema.structural import validate as validate_structural


class InvalidJob(Exception):
    """A FineTuneJob that breaks its schema; `errors` names every field."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(str(e) for e in errors))
        self.errors = errors


def validate(body: Json, old: Json | None = None) -> list[FieldError]:
    """Return every refusal of a job as a user wrote it, unknown fields included; [] if it is good.

    `old` is the stored object, where this is an update.
    """
    return _checked(body, old)[1]


def known_part(body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what of a body the schema knows, which may be the body, and the paths of all else."""
    if knows(schema(), body):
        return body, []
    value = copy.deepcopy(body)
    return value, prune(schema(), value)


def parse(body: dict[str, Any]) -> job.FineTuneJob:
    """Return the job with its defaults. Raises InvalidJob with every refused field."""
    value, errors = _checked(body, None)
    if errors:
        raise InvalidJob(errors)
    return job.FineTuneJob.model_validate(value)


def reread(body: dict[str, Any]) -> job.FineTuneJob:
    """Return the job of a body that `parse` has taken: rules between fields are not checked again.

    Raises pydantic's ValidationError where a field alone is wrong.
    """
    value = copied(body)
    apply_defaults(schema(), value)
    return job.FineTuneJob.model_validate(value)


def _checked(body: Json, old: Json | None) -> tuple[Json, list[FieldError]]:
    """Return a body with its defaults, and every refusal of it."""
    if not isinstance(body, dict):
        return body, [FieldError("", "a FineTuneJob must be a mapping of fields")]
    known = (("apiVersion", f"{job.GROUP}/{job.VERSION}"), ("kind", job.KIND))
    wrong = [
        FieldError(field, f'Invalid value: "{body.get(field)}": must be {expected}')
        for field, expected in known
        if body.get(field) != expected
    ]
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        wrong.append(FieldError("metadata.name", "Required value", "FieldValueRequired"))
    value, paths = known_part(body)
    unknown = [FieldError(path, "unknown field", "FieldValueForbidden") for path in paths]
    value = copied(value)
    apply_defaults(schema(), value)
    told = {error.path for error in wrong}
    halves = {path.rpartition(".")[0] for path in paths}  # of which a rule may miss what is unknown
    # A server checks nothing else before the fields are known; a user mends a file once.
    others = [
        error
        for error in validate_structural(schema(), value, old)
        if error.path not in told
        and not (error.kind == "FieldValueInvalid" and error.path and error.path in halves)
    ]
    return value, [*wrong, *unknown, *others]

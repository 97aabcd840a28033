"""JSON that obeys a schema, by jsonschema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from finetune_contract.rewards import JsonSchemaReward
from finetune_rewards.errors import RewardInvalid
from finetune_rewards.samples import Samples, text_of

_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n?```\Z", re.DOTALL | re.IGNORECASE)


def scorer(settings: JsonSchemaReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return 1 for JSON, fenced or not, that obeys the schema; else 0."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        schema = json.loads(settings.definition)
        Draft202012Validator.check_schema(schema)
    except ValueError as error:
        raise RewardInvalid(f"reward {name}: definition is not JSON: {error}") from None
    except SchemaError as error:
        raise RewardInvalid(
            f"reward {name}: definition is no JSON schema: {error.message}"
        ) from None
    # An empty registry: a $ref to another document is an error, never a download.
    validator = Draft202012Validator(schema, registry=Registry())

    def one(completion: str) -> float:
        try:
            return float(validator.is_valid(_document(completion)))
        except (ValueError, RecursionError):
            return 0.0
        except Unresolvable as error:
            raise RewardInvalid(
                f"reward {name}: definition refers to {error.ref!r}, which is not in it"
            ) from None

    return lambda samples: [one(text_of(text)) for text in samples.completions]


def _document(completion: str) -> Any:
    """Return what a completion says in JSON; raises ValueError or RecursionError if it is none."""
    text = completion.strip()
    fenced = _FENCED.match(text)
    return json.loads(fenced[1] if fenced else text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

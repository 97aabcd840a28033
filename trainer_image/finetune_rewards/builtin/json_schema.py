"""JSON that obeys a schema, by jsonschema."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from finetune_contract.rewards import JsonSchemaReward
from finetune_rewards.builtin import Scorer, each
from finetune_rewards.scores.errors import RewardInvalid

_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n?```\Z", re.DOTALL | re.IGNORECASE)


def scorer(settings: JsonSchemaReward, name: str) -> Scorer:
    """Return 1 for JSON, fenced or not, that obeys the schema; else 0."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry

    try:
        schema = json.loads(settings.definition)
        Draft202012Validator.check_schema(schema)
    except ValueError as error:
        raise RewardInvalid(f"reward {name}: definition is not JSON: {error}") from None
    except SchemaError as error:
        raise RewardInvalid(
            f"reward {name}: definition is no JSON schema: {error.message}"
        ) from None
    outside = _outside(schema)
    if outside is not None:
        raise RewardInvalid(f"reward {name}: definition refers to {outside!r}, which is not in it")
    validator = Draft202012Validator(schema, registry=Registry())

    def one(completion: str) -> float:
        try:
            document = _document(completion)
        except (ValueError, RecursionError):
            return 0.0
        return float(validator.is_valid(document))

    return each(one, settings)


def _outside(schema: Any) -> str | None:
    """Return a reference of a schema that leads out of it; None if there is none."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    root = DRAFT202012.create_resource(schema)
    # An empty registry: another document is never downloaded.
    left = [(root, Registry().resolver_with_root(root))]
    seen: set[int] = set()
    while left:
        part, resolver = left.pop()
        if id(part.contents) in seen:
            continue
        seen.add(id(part.contents))
        left += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]
        for keyword in ("$ref", "$dynamicRef"):
            if isinstance(part.contents, dict) and keyword in part.contents:
                reference: str = part.contents[keyword]
                try:
                    found = resolver.lookup(reference)
                except Unresolvable:
                    return reference
                left.append((DRAFT202012.create_resource(found.contents), found.resolver))
    return None


def _document(completion: str) -> Any:
    """Return what a completion says in JSON; raises ValueError or RecursionError if it is none."""
    text = completion.strip()
    fenced = _FENCED.match(text)
    return json.loads(fenced[1] if fenced else text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

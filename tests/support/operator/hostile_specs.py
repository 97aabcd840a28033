"""Specs that a user may write, drawn from the CRD's schema, and files in which jobs may stand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from finetune_api.crd import schema
from support.operator.hostile import NUMBERS, TEXTS, mutants

Json = Any
JOBS = Path(__file__).parents[2] / "jobs" / "good"
SPEC = schema()["properties"]["spec"]
GOOD = [yaml.safe_load(path.read_text())["spec"] for path in sorted(JOBS.glob("*.yaml"))]
USUAL = ["s3://b/c", "hf://o/m", "/models", "x", "0.1", "1e-5", "http://x.team/", "a.b/c", "Auto"]
QUANTITIES = [1, 64, 2**63 - 1, "1", "2Gi", "500m", "x", "1e400", "0.1n", "9" * 400, "-1", "1E", ""]


def _of(part: Json) -> st.SearchStrategy[Json]:
    """Return values that a part of the schema takes, its CEL rules aside."""
    if "enum" in part:
        return st.sampled_from(part["enum"])
    if part.get("x-kubernetes-int-or-string"):
        return st.sampled_from(QUANTITIES) | st.integers(1, 64)
    match part.get("type"):
        case "object" if "properties" in part:
            fields = {name: _of(inner) for name, inner in part["properties"].items()}
            asked = set(part.get("required", ()))
            needed = {name: fields.pop(name) for name in sorted(asked & fields.keys())}
            return st.fixed_dictionaries(needed, optional=fields)
        case "object":
            names = st.sampled_from(["a", "nvidia.com/gpu", "cpu", "memory", "\U0010ffff", ""])
            return st.dictionaries(names, _of(part.get("additionalProperties", {})), max_size=3)
        case "array":
            least = part.get("minItems", 0)
            return st.lists(_of(part["items"]), min_size=least, max_size=max(3, least))
        case "integer":
            least, most = part.get("minimum", -9), part.get("maximum", 2**63 - 1)
            return st.sampled_from([least, most]) | st.integers(least, most)
        case "boolean":
            return st.booleans()
        case _:
            return _strings(part)


def _strings(part: Json) -> st.SearchStrategy[str]:
    least, most = part.get("minLength", 0), part.get("maxLength", 40_000)
    longest = st.sampled_from(["x", "/", "\u4e16", "a-", "$(A) "]).map(
        lambda one: (one * most)[:most]
    )
    short = st.text(min_size=min(least, 30), max_size=min(most, 30))
    return st.sampled_from(USUAL) | short | longest


def _places(part: Json, at: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Json]]:
    """Return every field of the schema's objects that stand in no list."""
    found = []
    for name, inner in part.get("properties", {}).items():
        found += [((*at, name), inner), *_places(inner, (*at, name))]
    return found


PLACES = [(path, _of(part)) for path, part in _places(SPEC)]


@st.composite
def filled(draw: st.DrawFn) -> Json:
    """Draw a good spec, of which the schema fills up to four fields anew."""
    spec = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for path, values in draw(st.lists(st.sampled_from(PLACES), max_size=4)):
        at = spec
        for name in path[:-1]:
            at[name] = at = at[name] if isinstance(at.get(name), dict) else {}
        at[path[-1]] = draw(values)
    return spec


def specs() -> st.SearchStrategy[Json]:
    """Specs of the schema; and such as only another CRD, or none, would take."""
    return filled() | _of(SPEC) | mutants(*GOOD)


def files() -> st.SearchStrategy[str]:
    """Texts of files."""
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "b"}}
    written = mutants(*({**job, "spec": spec} for spec in GOOD)).map(yaml.safe_dump)
    known = ["kind: [a]", "? [a]\n: b", "&a [*a]", "!!int ''", "!!float x", "!!bool x", "a: .nan"]
    known += ["{a: " * 500, "[" * 1000, "- " * 500, f"a: {'9' * 5000}", *map(str, NUMBERS)]
    tags = st.sampled_from(["int", "float", "bool", "null", "timestamp", "binary", "set", "map"])
    tagged = st.tuples(tags, st.text(max_size=9)).map(lambda t: f"a: !!{t[0]} {t[1]}")
    noise = st.text(alphabet="ab:-?&*!|>%@{}[],#'\"\n <=\u2028\x1b1.", max_size=60)
    return written | st.sampled_from([*known, *TEXTS]) | tagged | noise

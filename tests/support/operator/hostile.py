"""What a hostile pod, trainer or hand may write: good documents, parts replaced by the worst."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from finetune_api.crd import schema
from support.operator.values import resolved, stamp

Json = Any
Path_ = tuple[int | str, ...]
JOBS = Path(__file__).parents[2] / "jobs" / "good"

TIMES = [
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59Z",
    "2999-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z",
    "1970-01-01T00:00:00Z",
    stamp(-900),
    stamp(900),
    "",
]
NUMBERS = [0, -1, 1, 2**31, 2**53 - 1, 2**53, -(2**63), 10**30, 1e30, -0.0, 1.5, 1e308]
TEXTS = [
    "",
    "\x1b[2J\n\r\u2028",
    "x" * 20_000,
    "\U0010ffff",
    "{" * 5000,
    "nan",
    "s3://adapters/bot/",
]
RAW = [
    "[" * 4000,
    '{"a":' * 4000,
    '"\\ud800"',
    "1e999",
    "NaN",
    "9" * 5000,
    "\ufeff{}",
    "\x00",
    '{"a":1,"a":2}',
]
CHECKPOINT = {"attempt": 1, "step": 4, "uri": "s3://adapters/bot/runs/u/a1/c"}
PLAN = json.loads(resolved(lora=()).to_json())
RESULT = {
    "attempt": 1,
    "outcome": "Failed",
    "reason": "OutOfMemory",
    "message": "m",
    "step": 4,
    "rank": 0,
    "frames": ["a.py:1"],
    "artifact": {"uri": "s3://adapters/bot/a", "digest": "sha256:0", "bytes": 1},
    "checkpoint": CHECKPOINT,
    "plan": PLAN,
}
PROGRESS = {
    "phase": "Train",
    "done": 3,
    "total": 9,
    "step": 3,
    "resumedStep": 1,
    "checkpoint": CHECKPOINT,
    "plan": {**PLAN, "lora": [{"role": "MLP", "found": 3, "adapted": 3}]},
    "loss": 0.5,
    "evalLoss": 0.5,
    "tokensPerSecond": 9.0,
    "reward": 1.0,
    "rewards": [{"name": "right", "mean": 0.5, "std": 0.1, "seconds": 1.0, "errors": 0}],
    "note": "n",
    "etaSeconds": 9,
}


def _leaves() -> st.SearchStrategy[Json]:
    known = st.sampled_from([None, True, [], {}, [[[]]], *TIMES, *NUMBERS, *TEXTS])
    return (
        known
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9)
    )


def _alike(value: Json) -> st.SearchStrategy[Json]:
    """Return values that a server takes where it took this one."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(-(2**31), 2**31 - 1)
    if isinstance(value, str) and value.endswith("Z") and value[:2] == "20":
        return st.sampled_from(TIMES[:-1])
    return st.sampled_from(TEXTS) | st.text(max_size=9)


def _paths(value: Json, at: Path_ = ()) -> Iterator[Path_]:
    yield at
    items = (
        enumerate(value)
        if isinstance(value, list)
        else value.items()
        if isinstance(value, dict)
        else ()
    )
    for key, inner in items:
        yield from _paths(inner, (*at, key))


def _at(value: Json, path: Path_) -> Json:
    for key in path:
        value = value[key]
    return value


def _put(value: Json, path: Path_, new: Json) -> Json:
    if not path:
        return new
    changed = copy.deepcopy(value)
    _at(changed, path[:-1])[path[-1]] = new
    return changed


@st.composite
def mutants(draw: st.DrawFn, *good: Json, typed: bool = False) -> Json:
    """Draw one of the documents with one to three parts replaced, doubled or left out; `typed` ones
    keep each leaf's type."""
    value = copy.deepcopy(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 3))):
        paths = [
            p for p in _paths(value) if not typed or not isinstance(_at(value, p), dict | list)
        ]
        path = draw(st.sampled_from(paths))
        kind = draw(st.sampled_from(["replace", "replace", "drop", "twice"]))
        if typed or kind == "replace" or not path:
            value = _put(value, path, draw(_alike(_at(value, path)) if typed else _leaves()))
        elif kind == "drop":
            value = copy.deepcopy(value)
            del _at(value, path[:-1])[path[-1]]
        elif isinstance(path[-1], int):
            value = copy.deepcopy(value)
            _at(value, path[:-1]).append(_at(value, path))
        if not isinstance(value, dict | list):
            return value
    return value


def told(good: Json) -> st.SearchStrategy[str]:
    """Texts where the good document's is expected."""
    return (
        mutants(good).map(json.dumps)
        | st.sampled_from([*RAW, *TEXTS])
        | st.text(alphabet='{}[]":,\\u\x1b\n1e-', max_size=60)
    )


def _of(part: Json) -> st.SearchStrategy[Json]:
    """Return values that a part of the CRD's schema takes, its CEL rules aside."""
    if "enum" in part:
        return st.sampled_from(part["enum"])
    if part.get("x-kubernetes-int-or-string"):
        return st.integers(1, 64) | st.sampled_from(["1", "2Gi", "500m", "x"])
    match part.get("type"):
        case "object" if "properties" in part:
            fields = {name: _of(inner) for name, inner in part["properties"].items()}
            asked = set(part.get("required", ()))
            needed = {name: fields.pop(name) for name in sorted(asked & fields.keys())}
            return st.fixed_dictionaries(needed, optional=fields)
        case "object":
            return st.dictionaries(
                st.sampled_from(["a", "nvidia.com/gpu", "cpu"]),
                st.sampled_from(["1", "x"]),
                max_size=2,
            )
        case "array":
            return st.lists(_of(part["items"]), min_size=part.get("minItems", 0), max_size=3)
        case "integer":
            return st.integers(part.get("minimum", -9), min(part.get("maximum", 99), 2**40))
        case "boolean":
            return st.booleans()
        case _:
            return _strings(part)


def _strings(part: Json) -> st.SearchStrategy[str]:
    usual = st.sampled_from(
        ["s3://b/c", "hf://o/m", "/models", "x", "0.1", "1e-5", "http://x.team/"]
    )
    longest = min(part.get("maxLength", 30), 30)
    return usual | st.text(min_size=min(part.get("minLength", 0), 30), max_size=longest)


SPEC = schema()["properties"]["spec"]
PARTS = {
    (name, inner): _of(part)
    for name, stanza in SPEC["properties"].items()
    for inner, part in stanza.get("properties", {}).items()
}
GOOD = [yaml.safe_load(path.read_text())["spec"] for path in sorted(JOBS.glob("*.yaml"))]


@st.composite
def specs(draw: st.DrawFn) -> Json:
    """Draw a spec: a good one, of which the schema fills up to three parts anew."""
    spec = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 3))):
        name, inner = draw(st.sampled_from(sorted(PARTS)))
        stanza = spec.setdefault(name, {})
        stanza[inner] = draw(PARTS[name, inner])
    return spec

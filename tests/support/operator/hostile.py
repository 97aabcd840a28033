"""What a hostile pod, trainer or hand may write: good documents, parts replaced by the worst."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from support.operator.values import resolved, stamp

Json = Any
Path_ = tuple[int | str, ...]

TIMES = [
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59Z",
    "2999-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "2026-03-01T12:00:00.123456789-13:30",
    "2026-03-01T24:00:00Z",
    "2016-12-31T23:59:60Z",
    "2026-03-01T12:00:00+99:99",
    "\u0662\u0660\u0662\u0666-03-01T12:00:00Z",
    stamp(-900),
    stamp(900),
    "",
]
NUMBERS = [0, -1, 1, 2**31, 2**53 - 1, 2**53, -(2**63), 10**30, 1e30, -0.0, 1.5, 1e308]
TEXTS = [
    "",
    "\x1b[2J\n\r\u2028",
    "\u202e\u2066\u200b\ufeff\x00\x7f\x9b",
    "x" * 20_000,
    "\U0010ffff",
    "\ud800",
    "{" * 5000,
    "nan",
    "s3://adapters/bot/",
    "s3://adapters/bot/../../other",
]
WORDS = ["True", "Unknown", "Running", "Succeeded", "Failed", "OOMKilled", "Evicted", "pytorch"]
LONG = "\u00e9\u4e16\n" * 2**18  # a MiB and more
RAW = [
    "[" * 4000,
    '{"a":' * 4000,
    "{}" * 4000,
    '{"' * 4000,
    '{"attempt":1,' * 4000,
    '"\\ud800"',
    '{"attempt":1,"outcome":"Failed","reason":"Stalled","message":"\\ud800\\udc00\\udfff"}',
    '{"phase":"Train","done":-0,"step":1E0,"note":"\\u0000\\u001b[2J"}',
    '{"phase":"Train","step":1,"step":9007199254740991}',
    "1e999",
    "-Infinity",
    "NaN",
    "9" * 5000,
    "-" + "9" * 20,
    "\ufeff{}",
    "\x00",
    '{"a":1,"a":2}',
    LONG,
    '{"message":"' + LONG,
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
    shapes = [None, True, [], {}, [[[]]], [None], [{}], {"": {}}, {"a": [None, 1]}]
    return (
        st.sampled_from([*shapes, *TIMES, *NUMBERS, *TEXTS])
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9)
    )


def _alike(value: Json) -> st.SearchStrategy[Json]:
    """Return values that a server takes where it took this one."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 137, 143, 2**63 - 1])
    if isinstance(value, str) and value.endswith("Z") and value[:2] == "20":
        return st.sampled_from(TIMES[:-1])
    if isinstance(value, list | dict):
        return st.just(type(value)())
    return st.sampled_from([*TEXTS, *WORDS]) | st.text(max_size=9)


def _paths(value: Json, at: Path_ = ()) -> Iterator[Path_]:
    yield at
    items: Any = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else items:
        yield from _paths(inner, (*at, key))


def _at(value: Json, path: Path_) -> Json:
    for key in path:
        value = value[key]
    return value


@st.composite
def mutants(draw: st.DrawFn, *good: Json, typed: bool = False) -> Json:
    """Draw one of the documents with one to four parts replaced, doubled, left out, or exchanged
    for another part; `typed` ones keep each part's type."""
    value = [copy.deepcopy(draw(st.sampled_from(good)))]
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from([(0, *path) for path in _paths(value[0])]))
        around, last, old = _at(value, path[:-1]), path[-1], _at(value, path)
        kind = draw(st.sampled_from(["replace", "replace", "drop", "twice", "move"]))
        if kind == "drop" and len(path) > 1:
            del around[last]
        elif kind == "twice" and isinstance(last, int) and len(path) > 1:
            around.append(copy.deepcopy(old))
        elif kind == "move" and not typed:
            other = draw(st.sampled_from(list(_paths(value[0]))))
            around[last] = copy.deepcopy(_at(value, (0, *other)))
        else:
            around[last] = draw(_alike(old) if typed else _leaves())
    return value[0]


def told(good: Json) -> st.SearchStrategy[str]:
    """Texts where the good document's is expected."""
    return (
        mutants(good).map(json.dumps)
        | mutants(good, typed=True).map(json.dumps)
        | st.sampled_from([*RAW, *TEXTS])
        | st.text(alphabet='{}[]":,\\u\x1b\n1e-', max_size=60)
    )

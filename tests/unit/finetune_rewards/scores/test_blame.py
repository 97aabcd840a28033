"""An error names class, message and the user's line, and never what stands in the rows."""

from __future__ import annotations

import pytest

from finetune_rewards.scores.blame import Code, blame
from support.rewards.runners import samples

ROW = "The capital of Kyrgyzstan is Bishkek, said Aigul Toktogulova."
SHORT = "seven"


def blamed(body: str, source_extra: str = "") -> str:
    source = f"def helper(completions, row):\n    {body}\n{source_extra}"
    scope: dict[str, object] = {}
    exec(compile(source, "reward.py", "exec"), scope)
    rows = samples(ROW, SHORT, row={"nested": [{"name": "Zhanyl", "age": 48151623}]})
    try:
        scope["helper"](rows.completions, rows.columns["row"][0])  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001
        return blame(error, Code("reward.py", source), rows)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError(completions[0])",
        "raise ValueError(f'can not score {completions[0]!r}')",
        "raise ValueError(completions[0][5:30])",
        "raise ValueError('in ' + completions[0][:20] + ' and ' + completions[0][30:])",
        "float(completions[1])",
        "raise KeyError(completions[1])",
        "{}[completions[0].split()[3]]",
        "raise ValueError(f\"for {row['nested'][0]['name']} of {row['nested'][0]['age']}\")",
        "raise ValueError(row)",
    ],
)
def test_rows_are_struck_out(body: str) -> None:
    said = blamed(body)
    for part in (*ROW.replace(",", " ").replace(".", " ").split(), SHORT, "Zhanyl", "48151623"):
        if len(part) > 4:
            assert part not in said, said
    assert "…" in said
    assert said.endswith("(reward.py line 2)")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("completions['answer']", "TypeError: list indices must be integers or slices, not str"),
        ("raise KeyError('capital')", "KeyError: 'capital'"),
        ("raise RuntimeError", "RuntimeError"),
        ("assert False", "AssertionError"),
    ],
)
def test_the_functions_own_words_stay(body: str, said: str) -> None:
    assert blamed(body) == f"{said} (reward.py line 2)"


def test_the_line_is_the_users_where_a_library_raises() -> None:
    assert blamed("import json; json.loads('{')").endswith("(reward.py line 2)")
    inner = "def inner():\n    raise ValueError('deep')\n"
    assert blamed("inner()", inner) == "ValueError: deep (reward.py line 4)"


def test_an_error_is_short_and_one_line() -> None:
    said = blamed("raise ValueError('\\n\\x1b[31m' + 'x' * 100_000)")
    assert len(said) <= 200
    assert said.isprintable()
    assert said.endswith("(reward.py line 2)")


def test_an_exception_that_can_not_be_printed_is_named() -> None:
    extra = """
class Odd(Exception):
    def __str__(self):
        raise SystemExit
"""
    assert blamed("raise Odd", extra) == "Odd (reward.py line 2)"

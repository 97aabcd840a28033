"""What `finetune reward test` reads, and how it refuses what it can not use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_cli.app import app
from support.rewards.trials import (
    CODE,
    EXACT,
    JOB,
    REGEX,
    Files,
    config_map,
    invoke,
    python,
    report,
)


def test_rewards_and_code_of_stdin(files: Files) -> None:
    documents = "\n---\n".join(map(json.dumps, [[python()], config_map(CODE)]))
    rows = files.rows({"prompt": "?", "completions": ["a", "bb"]})
    result = CliRunner().invoke(app, ["reward", "test", "-", str(rows), "--json"], input=documents)
    assert [row["total"] for row in json.loads(result.stdout)["rows"]] == [1.0, 2.0]
    refusal = CliRunner().invoke(app, ["reward", "test", "-", str(rows)], input="{")
    assert refusal.exit_code == 3
    assert "stdin: is not YAML" in refusal.stderr


def test_rewards_of_a_job_and_code_of_a_file(files: Files) -> None:
    method = {"type": "GRPO", "grpo": {"rewards": [python()]}}
    job = {**JOB, "spec": {**JOB["spec"], "method": method}}
    code = files.text(
        "own.py", "def score(completions, **kwargs):\n    return [7] * len(completions)"
    )
    rewards = files.rewards(config_map(CODE), job)
    rows = files.rows({"prompt": "?", "completion": "a"})
    assert report(rewards, rows)[1]["rows"][0]["scores"] == {"mine": 1.0}
    assert report(rewards, rows, "--source", f"mine={code}")[1]["rows"][0]["scores"] == {
        "mine": 7.0
    }


def test_messages_are_given_as_in_a_run(files: Files) -> None:
    source = (
        "def score(prompts, completions, **kwargs):\n    return [len(completions[0][0]['content'])]"
    )
    rewards = files.rewards([python()], config_map(source))
    turn = {"role": "assistant", "content": "four"}
    prompt = [{"role": "user", "content": "?"}]
    for row in (
        {"prompt": prompt, "completion": "four"},
        {"messages": prompt, "completion": [turn]},
        {"prompt": prompt, "completions": [[turn]]},
    ):
        assert report(rewards, files.rows(row))[1]["rows"][0]["scores"] == {"mine": 4.0}


def test_completions_of_any_column(files: Files) -> None:
    rewards = files.rewards([EXACT])
    rows = files.rows({"prompt": "?", "answer": "5"}, {"prompt": "?", "answer": "6"})
    refusal = invoke(rewards, rows)
    assert refusal.exit_code == 3
    assert "rows.jsonl:1: has no 'completion' or 'completions': put what" in refusal.stderr
    code, found = report(rewards, rows, "--completions", "answer")
    assert code == 0
    assert [row["total"] for row in found["rows"]] == [1.0, 1.0]


def test_a_column_of_the_data_stays_whatever_it_is_called(files: Files) -> None:
    rewards = files.rewards([{"name": "exact", "exact": {"answer": "completion"}}])
    rows = files.rows({"prompt": "?", "completion": "5", "completions": ["5", "6"]})
    found = report(rewards, rows)[1]
    assert [row["total"] for row in found["rows"]] == [1.0, 0.0]


def test_separators_of_other_standards_end_no_row(files: Files) -> None:
    text = '{"completion": "a\u2028b\x85c"}\r\n{"completion": "d"}'
    found = report(files.rewards([REGEX]), files.text("rows.jsonl", text))[1]
    assert [row["row"] for row in found["rows"]] == [1, 2]


def test_tokens_are_counted_where_rows_have_them(files: Files) -> None:
    rewards = files.rewards([{"name": "short", "length": {"unit": "Tokens", "most": 2}}])
    rows = files.rows(
        {"prompt": "?", "completion": "a b c", "completion_ids": [1, 2]},
        {"prompt": "?", "completion": "a b c"},
    )
    scores = [row["scores"]["short"] for row in report(rewards, rows)[1]["rows"]]
    assert scores == [1.0, None]


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        (
            [[{"name": "a", "regx": {}}]],
            "rewards.yaml:1:16: rewards[0].regx: unknown field; did you mean regex?",
        ),
        ([[{"name": "a"}]], "set exactly one of math, exact"),
        ([[REGEX], [REGEX]], "it holds 0 and 2"),
        ([{"kind": "ConfigMap"}], "it holds 0 and 0"),
        ([JOB], "spec.method.type is not GRPO"),
        ([[python()]], "add the ConfigMap 'code' with the key 'a.py'"),
        ([[python()], {"kind": "ConfigMap", "data": {"a.py": CODE}}], "add the ConfigMap 'code'"),
        ([[python()], {"kind": "ConfigMap", "data": [CODE]}], "add the ConfigMap 'code'"),
    ],
)
def test_rewards_that_can_not_be_read(files: Files, documents: list[Any], words: str) -> None:
    result = invoke(files.rewards(*documents), files.rows({"prompt": "?", "completion": "1"}))
    assert result.exit_code == 3
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "rows.jsonl: has no rows"),
        ("{}\n[]", "rows.jsonl:1: has no 'completion'"),
        ("\n5", "rows.jsonl:2: is not a JSON object"),
        ("{", "rows.jsonl:1: is not JSON"),
        ('{"completion": {"a": 1}}', "rows.jsonl:1: 'completion' holds neither text nor messages"),
        ('{"completions": []}', "rows.jsonl:1: has no 'completion'"),
        *(
            (f'{{"completion": "a", "completion_ids": {ids}}}', "1: 'completion_ids' is not a list")
            for ids in ('"abc"', "5", "[1.5]", "[true]", "[[1]]")
        ),
    ],
)
def test_rows_that_can_not_be_read(files: Files, text: str, words: str) -> None:
    result = invoke(files.rewards([REGEX]), files.text("rows.jsonl", text))
    assert result.exit_code == 3
    assert words in result.stderr


def test_a_source_for_nobody_is_refused(files: Files) -> None:
    rows = files.rows({"prompt": "?", "completion": "1"})
    result = invoke(files.rewards([REGEX]), rows, "--source", "mine=a.py")
    assert result.exit_code == 3
    assert "--source mine" in result.stderr
    assert invoke(files.rewards([REGEX]), rows, "--source", "mine").exit_code == 2

"""`finetune reward test`: the scores that a job would give, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from finetune_cli.app import app
from support.judge_server import Document, judge_server, lengths

CODE = """
def score(prompts, completions, weightless=None, **kwargs):
    print("seen", len(completions))
    return [None if "?" in text else float(len(text)) for text in completions]
"""
JOB = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "job"},
    "spec": {
        "model": {"uri": "s3://demo/model"},
        "data": {"train": [{"uri": "s3://demo/train.jsonl"}]},
        "output": {"uri": "s3://demo/out"},
    },
}


def python(name: str = "mine", **settings: Any) -> dict[str, Any]:
    return {"name": name, "python": {"configMap": {"name": "code", "key": "a.py"}, **settings}}


def config_map(source: str) -> dict[str, Any]:
    metadata = {"name": "code"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a.py": source}}


class Files:
    """Files of one test; JSON is YAML."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def rewards(self, *documents: Any) -> Path:
        return self.text("rewards.yaml", "\n---\n".join(map(json.dumps, documents)))

    def rows(self, *rows: Any) -> Path:
        return self.text("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def text(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["reward", "test", *map(str, arguments)])


def report(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = invoke(*arguments, "--json")
    assert result.stdout, result.stderr
    return result.exit_code, json.loads(result.stdout)


EXACT = {"name": "exact", "exact": {}}
REGEX = {"name": "digit", "regex": {"pattern": r"\d"}}


def test_scores_spread_and_total(files: Files) -> None:
    rewards = files.rewards([{**EXACT, "weight": "3"}, python()], config_map(CODE))
    rows = files.rows(
        {"prompt": "2 + 3", "answer": 5, "completions": ["5", "555"]},
        {"prompt": "2 + 4", "answer": "6", "completion": "6?"},
    )
    code, found = report(rewards, rows)
    assert code == 0
    assert found["ok"]
    places = [(row["row"], row["completion"]) for row in found["rows"]]
    assert places == [(1, 0), (1, 1), (2, 0)]
    assert [row["scores"] for row in found["rows"]] == [
        {"exact": 1.0, "mine": 1.0},
        {"exact": 0.0, "mine": 3.0},
        {"exact": 0.0, "mine": None},
    ]
    assert [row["total"] for row in found["rows"]] == [4.0, 3.0, 0.0]
    mine = found["rewards"][1]
    assert (mine["mean"], mine["std"], mine["min"], mine["max"]) == (2.0, 1.0, 1.0, 3.0)
    assert (mine["scored"], mine["abstentions"], mine["errors"]) == (2, 1, 0)
    assert mine["seconds"] >= 0
    assert found["warnings"] == []


def test_the_runner_says_nothing_unless_it_is_asked_for_its_log(
    files: Files, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = files.rows({"prompt": "?", "completions": ["a", "bb"]})
    rewards = files.rewards([python()], config_map(CODE))
    assert invoke(rewards, rows).stderr == ""
    assert capfd.readouterr().err == ""
    invoke(rewards, rows, "--log")
    told = capfd.readouterr().err
    assert "mine is ready" in told
    assert "mine: seen 2" in told
    broken = files.rewards([python()], config_map("def score(:"))
    assert invoke(broken, rows).stderr.count("SyntaxError") == 1
    assert capfd.readouterr().err == "", "it is told once"


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


def test_errors_are_told_and_are_no_zeros(files: Files) -> None:
    source = "def score(completions, **kwargs):\n    return [1.0, float('nan')]"
    rewards = files.rewards([python(), REGEX], config_map(source))
    rows = files.rows({"prompt": "?", "completions": ["1", "2"]})
    code, found = report(rewards, rows)
    assert code == 1
    assert not found["ok"]
    assert found["rows"][1]["scores"] == {"mine": None, "digit": 1.0}
    assert found["rows"][1]["total"] == 2.0
    assert "nan" in found["rows"][1]["errors"]["mine"]
    shown = invoke(rewards, rows)
    assert shown.exit_code == 1
    assert "error" in shown.stdout
    assert "mine: 1 x the score is nan" in shown.stdout


def test_failures_do_not_end_the_try(files: Files) -> None:
    source = "def score(completions, **kwargs):\n    raise ValueError('broken')"
    reward = {**python(), "onError": "FailAfter", "failAfter": 1}
    rewards = files.rewards([reward], config_map(source))
    code, found = report(rewards, files.rows({"prompt": "?", "completion": "1"}))
    assert code == 1
    assert "ValueError: broken" in found["rows"][0]["errors"]["mine"]
    assert found["warnings"] == ["no total for completions of row 1: training leaves them out"]


def test_what_teaches_nothing_is_warned_of(files: Files) -> None:
    rewards = files.rewards([REGEX, python()], config_map(CODE))
    rows = files.rows(
        {"prompt": "?", "completions": ["1", "2"]}, {"prompt": "?", "completions": ["12", "3"]}
    )
    code, found = report(rewards, rows)
    assert code == 0
    assert found["warnings"] == [
        "reward digit gives every completion the score 1: by itself it teaches nothing",
        "all completions of row 1 have one total: such a group teaches nothing",
    ]
    assert "warning: reward digit gives" in invoke(rewards, rows).stderr
    gate = {**REGEX, "weight": "0", "gate": "1"}
    warnings = report(files.rewards([gate, python()], config_map(CODE)), rows)[1]["warnings"]
    assert not any("reward digit" in warning for warning in warnings), "a gate need not differ"
    abstained = files.rows({"prompt": "?", "completion": "?"})
    code, found = report(files.rewards([python()], config_map(CODE)), abstained)
    assert code == 1
    assert "reward mine abstained from every completion" in found["warnings"]


RAISES = "def score(completions, **kwargs):\n    return [1 / len(text) for text in completions]"


def test_what_one_completion_raises_is_warned_of_as_the_loss_of_all(files: Files) -> None:
    rewards = files.rewards([python()], config_map(RAISES))
    code, found = report(rewards, files.rows({"prompt": "?", "completions": ["a", ""]}))
    assert code == 1
    assert [set(row["errors"]) for row in found["rows"]] == [{"mine"}, {"mine"}]
    words = "reward mine: what it raises for one completion costs all of the call"
    assert any(warning.startswith(words) for warning in found["warnings"])
    for rows in ({"completion": ""}, {"completions": ["a", "bb"]}):
        warnings = report(rewards, files.rows(rows))[1]["warnings"]
        assert not any(words in warning for warning in warnings)


def test_a_table_keeps_to_the_terminals_width(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_cli.reward_report.OUT.width", 80)
    names = ["correct", "format", "long-enough", "polite", "style", "short"]
    rewards = files.rewards([{**REGEX, "name": name} for name in names])
    shown = invoke(rewards, files.rows({"completions": ["some words " * 9, "a few words in all"]}))
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["row", "completion", *names, "total"] in lines
    assert [line[-7:] for line in lines if line[:1] == ["1"]] == [["0"] * 7] * 2
    assert max(map(len, shown.stdout.splitlines())) <= 80
    invoked = invoke(files.rewards([REGEX]), files.rows({"completion": "word " * 20}))
    assert ("word " * 20)[:39] + "…" in invoked.stdout


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


def test_services_are_called(files: Files, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with judge_server() as judge:
        http = {"url": judge.url, "credentialsSecretRef": {"name": "keys"}}
        rewards = files.rewards([{"name": "judge", "http": http}])
        rows = files.rows({"prompt": "?", "completion": "abc"})
        assert invoke(rewards, rows).exit_code == 2
        assert "--secret keys=DIR" in invoke(rewards, rows).stderr
        code, found = report(rewards, rows, "--secret", f"keys={tmp_path}")
        assert (code, found["rows"][0]["total"]) == (0, 3.0)
        assert judge.requests[0].headers["Authorization"] == "Bearer secret"


def test_a_service_is_tried_where_it_can_be_reached(files: Files) -> None:
    rewards = files.rewards([{"name": "judge", "http": {"url": "http://judge/score"}}, REGEX])
    rows = files.rows({"prompt": "?", "completion": "abc"})
    with judge_server() as judge:
        code, found = report(rewards, rows, "--url", f"judge={judge.url}")
    assert (code, found["rows"][0]["scores"]["judge"]) == (0, 3.0)
    for given, code, words in (
        ("judge=ftp://here", 3, "--url judge: 'ftp://here' is no address of a service"),
        ("digit=http://here", 3, "rewards.yaml has no http reward of that name"),
        ("judge", 2, "'judge' is not REWARD=URL"),
    ):
        refusal = invoke(rewards, rows, "--url", given)
        assert refusal.exit_code == code
        assert words in " ".join(refusal.stderr.replace("│", " ").split())


def test_a_service_that_is_down_is_not_waited_for(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_cli.reward.PAUSE_SECONDS", 0.1)

    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.json_response({"scores": lengths(document)}, status=503)

    with judge_server(behave) as judge:
        http = {"url": judge.url, "retries": 0, "pauseSeconds": 3600}
        rewards = files.rewards([{"name": "judge", "http": http}])
        result = invoke(rewards, files.rows({"prompt": "?", "completion": "abc"}))
    assert result.exit_code == 33
    assert "reward judge: no answer for 0.1 s: 503" in result.stderr


def test_models_are_left_out_and_named(files: Files) -> None:
    model = {"name": "judge", "model": {"uri": "hf://a/b"}}
    rows = files.rows({"prompt": "?", "completion": "1"})
    code, found = report(files.rewards([REGEX, model]), rows)
    assert (code, found["untried"], found["rows"][0]["total"]) == (0, ["judge"], 1.0)
    assert "judge: a model; it was left out" in invoke(files.rewards([REGEX, model]), rows).stdout
    assert invoke(files.rewards([model]), rows).exit_code == 2


def test_a_reward_that_does_not_load_ends_with_its_reason(files: Files) -> None:
    rewards = files.rewards([python()], config_map("def other():\n    pass"))
    result = invoke(rewards, files.rows({"prompt": "?", "completion": "1"}))
    assert result.exit_code == 30
    assert "score" in result.stderr
    missing = invoke(files.rewards([EXACT]), files.rows({"prompt": "?", "completion": "1"}))
    assert missing.exit_code == 30
    assert "reward exact: no row has the column 'answer'" in missing.stderr


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([[{"name": "a", "regx": {}}]], "rewards.yaml: rewards[0].regx: unknown field"),
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

"""`finetune reward test`: the scores that a job would give, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from support.rewards.trials import CODE, EXACT, REGEX, Files, config_map, invoke, python, report
from support.services.judge import Document, judge_server, lengths


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

"""What `finetune reward test` warns of and how it is shown."""

from __future__ import annotations

import pytest

from support.rewards.trials import CODE, REGEX, Files, config_map, invoke, python, report


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
    monkeypatch.setenv("COLUMNS", "80")
    names = ["correct", "format", "long-enough", "polite", "style", "short"]
    rewards = files.rewards([{**REGEX, "name": name} for name in names])
    shown = invoke(rewards, files.rows({"completions": ["some words " * 9, "a few words in all"]}))
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["row", "completion", *names, "total"] in lines
    assert [line[-7:] for line in lines if line[:1] == ["1"]] == [["0"] * 7] * 2
    assert max(map(len, shown.stdout.splitlines())) <= 80
    invoked = invoke(files.rewards([REGEX]), files.rows({"completion": "word " * 20}))
    assert ("word " * 20)[:39] + "…" in invoked.stdout

"""What the trial of a user's rewards refuses, and what it merely says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.result import Outcome, decode
from finetune_contract.rewards import (
    DIGEST_VARIABLE,
    BannedReward,
    ExactReward,
    PythonReward,
    Reward,
)
from finetune_rewards import check as module
from finetune_rewards.check import check
from finetune_rewards.scores.errors import RewardInvalid, SandboxUnavailable
from support.rewards.runners import forged

ROWS = [
    {"prompt": "1 + 1 =", "columns": {"answer": "2"}},
    {"prompt": [{"role": "user", "content": "2 + 1 ="}], "columns": {"answer": "3"}},
]
HEAD = "def score(prompts, completions, answer, **kwargs):\n"
EXACT = HEAD + (
    "    texts = [c if isinstance(c, str) else c[0]['content'] for c in completions]\n"
    "    return [float(t == a) for t, a in zip(texts, answer)]\n"
)


async def tried(tmp_path: Path, source: str, seconds: float = 20.0) -> str:
    (tmp_path / "score.py").write_text(source)
    python = PythonReward(config_map="code", key="score.py", timeout_seconds=seconds)
    reward = Reward(name="mine", python=python)
    (line,) = await check([reward], {"mine": tmp_path / "score.py"}, ROWS)
    return line


async def test_the_rows_own_answers_and_empty_ones_are_scored(tmp_path: Path) -> None:
    assert await tried(tmp_path, EXACT) == "reward mine: 4 scores from 0 to 1"


async def test_what_is_scored_is_a_rows_own_answer_else_its_prompt(tmp_path: Path) -> None:
    source = (
        "def score(completions, **_):\n    return [float(c) for c in completions if c] or [0.0]"
    )
    (tmp_path / "score.py").write_text(source)
    reward = Reward(name="mine", python=PythonReward(config_map="code", key="score.py"))
    for columns, score in (
        ({"completion": "1", "answer": "2", "solution": "3"}, 1),
        ({"answer": "2", "solution": "3"}, 2),
        ({"solution": "3", "answer": 4}, 3),
        ({"other": "5"}, 7),
    ):
        (line,) = await check(
            [reward], {"mine": tmp_path / "score.py"}, [{"prompt": "7", "columns": columns}]
        )
        assert line == f"reward mine: 2 scores from 0 to {score}"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (HEAD + "    return [\n", r"SyntaxError.*\(score.py line 2\)"),
        ("import no_such_package\n", "no_such_package"),
        ("def other(**kwargs): ...\n", "score"),
        ("def score(completions, solution, **kwargs):\n    return [0.0]\n", "solution"),
        (HEAD + "    return [0.5]\n", "fails on every row: .* 1 scores? for 2 completions"),
        (HEAD + "    return ['good'] * len(answer)\n", "fails on every row: "),
        (HEAD + "    return [float('nan')] * len(answer)\n", "fails on every row: .*nan"),
        (HEAD + "    raise KeyError(answer[0])\n", "fails on every row: KeyError"),
    ],
)
async def test_code_that_would_score_nothing_is_refused(
    tmp_path: Path, source: str, says: str
) -> None:
    with pytest.raises(RewardInvalid, match=f"^reward mine: (?!reward mine).*{says}"):
        await tried(tmp_path, source)


async def test_code_that_never_returns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardInvalid, match="fails on every row"):
        await tried(tmp_path, HEAD + "    while True: pass\n", seconds=1.0)


async def test_what_is_no_fault_of_the_code_keeps_its_reason(tmp_path: Path) -> None:
    hello = {"ready": False, "reason": Reason.SANDBOX_UNAVAILABLE.value, "message": "no sandbox"}
    with pytest.raises(SandboxUnavailable, match=r"^reward mine: no sandbox"):
        await tried(tmp_path, forged(hello))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    return [0.25] * len(answer)\n", "4 scores from 0.25 to 0.25; all are equal"),
        ("    return [None] * len(answer)\n", "0 scores; it abstained from every row"),
        (
            "    return [1 / len(c if isinstance(c, str) else c[0]['content']) "
            "for c in completions]\n",
            "2 scores from 1 to 1; .*it fails on empty completions: ZeroDivisionError",
        ),
    ],
)
async def test_what_looks_odd_is_said(tmp_path: Path, body: str, says: str) -> None:
    line = await tried(tmp_path, HEAD + body)
    assert re.search(says, line), line


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"regex": {"pattern": "(a"}}, "^reward it: .*pattern"),
        ({"reasoning_gym": {"task": "chain_sums", "entry": "answer"}}, "chain_sum"),
        ({"exact": {"answer": "anwser"}}, "^reward it: no row has the column 'anwser'; .*'answer'"),
    ],
)
async def test_builtins_that_can_not_score_are_refused(block: dict[str, Any], says: str) -> None:
    reward = Reward.model_validate({"name": "it", **block})
    with pytest.raises(RewardInvalid, match=says):
        await check([reward], {}, ROWS)


async def test_builtins_that_score_all_alike_are_named_unless_they_only_gate() -> None:
    rewards = [
        Reward(name="answer", exact=ExactReward()),
        Reward(name="calm", banned=BannedReward(phrases=("damn",))),
        Reward(name="polite", weight=0, gate=1, banned=BannedReward(phrases=("damn",))),
    ]
    answer, calm, polite = await check(rewards, {}, ROWS)
    assert answer == "reward answer: 4 scores from 0 to 1"
    assert calm.startswith("reward calm: 4 scores from 1 to 1; all are equal")
    assert polite == "reward polite: 4 scores from 1 to 1"


@pytest.mark.parametrize(
    ("source", "outcome", "reason"),
    [
        (EXACT, Outcome.SUCCEEDED, Reason.SUCCEEDED),
        ("def score(:\n", Outcome.FAILED, Reason.REWARD_INVALID),
    ],
)
def test_the_result_says_how_it_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    outcome: Outcome,
    reason: Reason,
) -> None:
    reward = Reward(name="mine", python=PythonReward(config_map="code", key="score.py"))
    (tmp_path / "rewards.json").write_text(f"[{reward.to_json()}]")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1 + 1 =", "columns": {"answer": "2"}}\n')
    (tmp_path / "score.py").write_text(source)
    given = {"rewards": "rewards.json", "rows": "rows.jsonl", "termination-log": "told"}
    arguments = [f"--{name}={tmp_path / file}" for name, file in given.items()]
    source_argument = f"--source=mine={tmp_path / 'score.py'}"
    monkeypatch.setattr("sys.argv", ["check", *arguments, source_argument])
    assert module.main() == exit_code(reason)
    told = decode((tmp_path / "told").read_text())
    assert told is not None
    assert (told.outcome, told.reason, told.attempt) == (outcome, reason, 1)
    assert "reward mine" in told.message


def test_rewards_that_someone_swapped_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards.json").write_text("[]")
    given = {"rewards": "rewards.json", "rows": "rows.jsonl", "termination-log": "told"}
    arguments = [f"--{name}={tmp_path / file}" for name, file in given.items()]
    monkeypatch.setattr("sys.argv", ["check", *arguments])
    monkeypatch.setenv(DIGEST_VARIABLE, "sha256:of-others")
    assert module.main() == exit_code(Reason.INPUT_CHANGED)
    told = decode((tmp_path / "told").read_text())
    assert told is not None
    assert told.reason is Reason.INPUT_CHANGED

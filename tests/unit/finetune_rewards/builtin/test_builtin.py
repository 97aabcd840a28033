"""What holds of every builtin reward: its settings are judged first, and any text has a score."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_rewards.builtin import BUILTINS, scorer
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Samples, Text
from support.rewards.builtin import reward


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"exact": {"pattern": "("}}, r"missing \)"),
        ({"exact": {"pattern": "abc"}}, "no group"),
        ({"regex": {"pattern": "["}}, "unterminated"),
        ({"reasoning_gym": {"task": "chain_sum", "pattern": "abc"}}, "no group"),
        ({"reasoning_gym": {"task": "chain_summ"}}, "chain_summ"),
        ({"json_schema": {"definition": "{{"}}, "not JSON"),
        ({"json_schema": {"definition": '{"type": "text"}'}}, "no JSON schema"),
        ({"language": {"language": "qq"}}, "'qq'"),
        ({"banned": {"phrases": ["a", " "]}}, "empty phrase"),
    ],
)
def test_settings_that_can_not_be_used(source: dict[str, Any], words: str) -> None:
    with pytest.raises(RewardInvalid, match=words) as caught:
        scorer(reward(**source))
    assert caught.value.message.startswith("reward judge: ")


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)  # as if it could not be found
    with pytest.raises(RewardInvalid, match=r"^reward judge: reasoning_gym is not installed; "):
        scorer(reward(reasoning_gym={"task": "chain_sum"}))


SETTINGS: dict[str, dict[str, Any]] = {
    "math": {},
    "exact": {},
    "regex": {"pattern": "a+"},
    "choice": {},
    "tags": {"tags": ["a"]},
    "json_schema": {},
    "length": {"most": 5},
    "language": {"language": "en"},
    "repetition": {},
    "banned": {"phrases": ["a"]},
    "reasoning_gym": {"task": "chain_sum"},
}


SCORERS = {name: scorer(reward(**{name: SETTINGS[name]})) for name in BUILTINS}


@given(text=st.text(max_size=60), dialogue=st.booleans())
@pytest.mark.parametrize("name", sorted(set(BUILTINS) - {"math"}))
def test_any_text_has_a_score_from_0_to_1(name: str, text: str, dialogue: bool) -> None:
    completion: Text = [{"role": "assistant", "content": text}] if dialogue else text
    columns = {"answer": ["A"], "entry": [{"answer": "A"}]}
    [found] = SCORERS[name](Samples(["?"], [completion], [[1]], columns))
    assert found is not None
    assert math.isfinite(found)
    assert 0 <= found <= 1
    assert SCORERS[name](Samples(["?"], [text], [[1]], columns)) == [found]


def test_libraries_are_imported_by_the_reward_that_needs_them() -> None:
    code = (
        "import sys; from finetune_rewards.builtin import scorer;"
        "from finetune_contract.rewards import Reward;"
        "scorer(Reward.model_validate({'name': 'a', 'regex': {'pattern': 'a'}}));"
        "print([m for m in ('math_verify', 'reasoning_gym', 'py3langid', 'jsonschema', 'torch')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

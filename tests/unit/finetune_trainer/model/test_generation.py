"""Where generation stops, as the files of an adapter say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_trainer.model.generation import save_generation_config, stop_tokens
from support.models.tiny_llama import byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXT, TURN = (TOKENIZER.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>"))
TOKENIZER.eos_token = "<|endoftext|>"


def model(eos: Any) -> Any:
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=eos))


@pytest.mark.parametrize(
    ("eos", "expected"),
    [
        (7, [7, TEXT, TURN]),
        ([8, 7], [8, 7, TEXT, TURN]),
        (None, [TEXT, TURN]),
        (TURN, [TURN, TEXT]),
    ],
)
def test_it_stops_as_model_tokenizer_and_chat_template_say(eos: Any, expected: list[int]) -> None:
    assert stop_tokens(model(eos), TOKENIZER) == expected


def test_a_tokenizer_may_have_no_end() -> None:
    tokenizer = byte_tokenizer(None)
    tokenizer.eos_token = None
    assert stop_tokens(model(5), tokenizer) == [5]


def test_what_else_the_author_says_stays(tmp_path: Path) -> None:
    own = {"eos_token_id": 7, "temperature": 0.6, "do_sample": False, "of_another_version": [1]}
    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    for base in (tmp_path, tmp_path / "none"):
        (out := tmp_path / f"of {base.name}").mkdir()
        save_generation_config(model(7), TOKENIZER, base, out)
        written = json.loads((out / "generation_config.json").read_bytes())
        rest = own if base is tmp_path else {}
        assert written == {**rest, "eos_token_id": [7, TEXT, TURN]}

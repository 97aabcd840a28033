"""What rewards read of tokens."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from finetune_rewards.builtin import scorer
from finetune_rewards.scores.samples import Samples
from finetune_trainer.methods.grpo.rewards.texts import Texts
from support.rewards.builtin import reward

MARKS = ["<pad>", "<|im_end|>", "<|im_start|>", "<think>", "</think>", "<tool_call>"]


@pytest.fixture
def tokenizer() -> Any:
    """Return one whose marks are all special tokens."""
    vocabulary = {word: at for at, word in enumerate([*MARKS, "assistant", "5", "6"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=MARKS[2:],
    )


def test_special_tokens_reach_rewards_but_for_ends_and_padding(tokenizer: Any) -> None:
    texts = Texts(tokenizer, ends=[tokenizer.eos_token_id])
    said = "<think> 6 </think> <tool_call> 5 <|im_end|> <pad> <pad>"
    assert texts.completion(tokenizer.encode(said)).split() == said.split()[:-3]


def test_a_header_opens_the_thought_of_what_follows(tokenizer: Any) -> None:
    texts = Texts(tokenizer, ends=[tokenizer.eos_token_id])
    plain = tokenizer.encode("6 " * 200 + "<think> 5 <|im_start|> assistant")
    header = [*plain, tokenizer.convert_tokens_to_ids("<think>")]
    assert texts.opened(plain) == ""
    assert texts.opened(header) == "<think>"
    tokens = tokenizer.encode("5 <|im_end|>")
    for prompt, score in ((plain, 1), (header, 0)):
        samples = Samples(
            ["?"],
            [texts.completion(tokens)],
            [tokens],
            {"answer": ["5"]},
            opened=[texts.opened(prompt)],
        )
        assert scorer(reward(math={}))(samples) == [score]

"""Exact-answer accuracy of a base model and of an adapter on held-out questions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

from finetune_local.demo_data import Sum
from finetune_trainer.process.logs import NOISY

_NEW_TOKENS = 16
_BATCH = 16
_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Accuracy:
    """Numbers of exact answers out of `items`."""

    base: int
    adapter: int
    items: int

    def percent(self, exact: int) -> float:
        """Return a count as a percentage of the items."""
        return 100.0 * exact / self.items

    @property
    def gain(self) -> float:
        """Return the adapter's lead over the base in percentage points."""
        return self.percent(self.adapter) - self.percent(self.base)


def measure(base: Path, adapter: Path, rows: Sequence[Sum]) -> Accuracy:
    """Ask both every question with greedy decoding and count the answers that are exactly right."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    getLogger(NOISY).setLevel(ERROR)
    warnings.simplefilter("ignore", FutureWarning)  # PEFT's use of transformers, not the reader's
    tokenizer = AutoTokenizer.from_pretrained(adapter, padding_side="left")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, adapter).eval()
    with model.disable_adapter():
        base_exact = _count_exact(model, tokenizer, rows)
    return Accuracy(base_exact, _count_exact(model, tokenizer, rows), len(rows))


def is_exact(answer: str, expected: str) -> bool:
    """Tell whether the whole answer is the expected number and nothing else."""
    return _NUMBER.fullmatch(answer.strip()) is not None and answer.strip() == expected


def _count_exact(model: Any, tokenizer: Any, rows: Sequence[Sum]) -> int:
    exact = 0
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        answers = _answers(model, tokenizer, [row.question for row in batch])
        exact += sum(is_exact(a, row.answer) for a, row in zip(answers, batch, strict=True))
    return exact


def _answers(model: Any, tokenizer: Any, questions: Sequence[str]) -> list[str]:
    import torch

    chats = [[{"role": "user", "content": question}] for question in questions]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        outputs = model.generate(
            **inputs,
            max_new_tokens=_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    new = outputs[:, inputs["input_ids"].shape[1] :]
    return [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]

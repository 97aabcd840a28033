"""Exact-answer accuracy of a base model and of an adapter on held-out questions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

from finetune_local.demo_data import Sum
from finetune_trainer.process.logs import NOISY

_NEW_TOKENS = 16


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


def _count_exact(model: Any, tokenizer: Any, rows: Sequence[Sum]) -> int:
    """Return how many answers are the expected number and nothing else."""
    import torch

    chats = [[{"role": "user", "content": row.question}] for row in rows]
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
    answers = tokenizer.batch_decode(new, skip_special_tokens=True)
    return sum(said.strip() == row.answer for said, row in zip(answers, rows, strict=True))

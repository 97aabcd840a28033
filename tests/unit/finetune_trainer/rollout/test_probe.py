"""Which models the built-in rollout engine draws with is found out before there are weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_contract.reasons import Reason
from finetune_trainer.model.architectures import ARCHITECTURES
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.decoders import PlainDecoder
from finetune_trainer.rollout.probe import check_drawing

SLOW = [pytest.mark.slow]


def empty(model_type: str) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type))


@pytest.mark.parametrize(
    "model_type",
    [
        "gpt_neox",
        "qwen3_next",  # layers of linear attention among the others
        *(pytest.param(name, marks=SLOW) for name in ("jamba", "lfm2", "gpt2")),
    ],
)
def test_what_draws_as_it_reads_is_let_through(
    model_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_drawing(empty(model_type))
    assert "could not be checked" not in caplog.text


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("openai-gpt", "token by token it gives other logits"),
        ("mamba", "token by token it gives other logits"),
    ],
)
def test_what_does_not_is_refused_with_what_does(model_type: str, why: str) -> None:
    with pytest.raises(Failure, match=f"model_type {model_type}: {why}") as caught:
        check_drawing(empty(model_type))
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
    assert all(name in caught.value.message for name in ARCHITECTURES)


def test_a_cache_that_fails_is_named() -> None:
    class Fails(PlainDecoder):
        def keep(self, rows: Tensor) -> None:
            raise AttributeError("no such layer")

    why = r"with model_type gpt_neox: its cache does not work \(AttributeError\)"
    with pytest.raises(Failure, match=why):
        check_drawing(empty("gpt_neox"), Fails)


@pytest.mark.parametrize("place", [0, 3])
def test_every_token_and_every_row_is_looked_at(place: int) -> None:
    class Shifted(PlainDecoder):
        asked = 0

        def step(self, tokens: Tensor) -> Tensor:
            logits = super().step(tokens)
            logits[-1] += self.asked == place
            self.asked += 1
            return logits

    with pytest.raises(Failure, match="other logits"):
        check_drawing(empty("gpt_neox"), Shifted)


def test_a_row_that_goes_is_to_leave_the_others_as_they_are() -> None:
    class Swapped(PlainDecoder):
        def keep(self, rows: Tensor) -> None:
            super().keep(rows.flip(0) if len(rows) == 2 else rows)

    with pytest.raises(Failure, match="other logits"):
        check_drawing(empty("gpt_neox"), Swapped)


def test_what_is_drawn_first_is_looked_at_too() -> None:
    class Shifted(PlainDecoder):
        def read(self) -> Iterator[Tensor]:
            for logits in super().read():
                logits[-1] -= 1
                yield logits

    with pytest.raises(Failure, match="other logits"):
        check_drawing(empty("gpt_neox"), Shifted)


def test_what_can_not_be_tried_is_told(caplog: pytest.LogCaptureFixture) -> None:
    unlike_any = SimpleNamespace(config=AutoConfig.for_model("gpt_neox"))
    with caplog.at_level(logging.WARNING):
        check_drawing(unlike_any)
    assert "model_type gpt_neox could not be checked for drawing completions" in caplog.messages

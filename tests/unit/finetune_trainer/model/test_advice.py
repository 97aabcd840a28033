"""What training can not mend is told: control tokens that a base never saw, ends that are text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_contract.recipe import LoraTarget
from finetune_contract.resolved import LONGEST_ADVICE
from finetune_trainer.model.advice import advice
from support.models.tiny_llama import CHATML, SPECIAL, byte_tokenizer, write_model

TARGETS = (LoraTarget.ATTENTION, LoraTarget.MLP)
TEXT, START, END = range(3)
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert byte_tokenizer().convert_tokens_to_ids(list(SPECIAL)) == [TEXT, START, END]
    return write_model(tmp_path_factory.mktemp("base"))


def changed(base: Path, directory: Path, table: str, rows: dict[int, Any]) -> Path:
    """Return a copy of a model in which some rows of a table are others."""
    tensors = load_file(base / "model.safetensors")
    for row, value in rows.items():
        tensors[table][row] = value
    directory.mkdir()
    for file in base.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    save_file(
        {name: t.to(torch.bfloat16) for name, t in tensors.items()}, directory / "model.safetensors"
    )
    return directory


def test_a_model_that_knows_its_tokens_needs_none(base: Path) -> None:
    assert advice(base, base, TARGETS) == ()


@pytest.mark.parametrize(
    ("table", "rows", "named"),
    [
        (EMBEDDINGS, {START: 0.0}, "<|im_start|>"),
        (HEAD, {END: 1e-9}, "<|im_end|>"),
        (EMBEDDINGS, {START: 0.3, END: 0.3}, "<|im_start|>, <|im_end|>"),
        (EMBEDDINGS, {TEXT: 0.3, END: 0.3}, "<|im_end|>"),
        (EMBEDDINGS, {TEXT: 0.0}, None),  # the template does not write it
        (EMBEDDINGS, {50: 0.3, END: 0.3}, None),  # a byte's row was trained
    ],
)
def test_tokens_that_it_never_saw_are_named(
    base: Path, table: str, rows: dict[int, Any], named: str | None, tmp_path: Path
) -> None:
    model = changed(base, tmp_path / "model", table, rows)
    said = advice(model, model, TARGETS)
    if named is None:
        assert said == ()
        return
    [words] = said
    assert words.startswith(f"the base model was never trained on {named}, which its chat template")
    assert "add Embeddings and Head to lora.targets" in words
    assert advice(model, model, [*TARGETS, LoraTarget.HEAD]) == said
    assert advice(model, model, [*TARGETS, LoraTarget.EMBEDDINGS, LoraTarget.HEAD]) == ()


def test_names_of_tokens_take_no_more_room_than_there_is(tmp_path: Path) -> None:
    long = "<|" + "x" * 500 + "|>"
    base = write_model(tmp_path / "base", chat_template=CHATML.replace("<|im_end|>", long))
    tokenizer: Any = byte_tokenizer(CHATML.replace("<|im_end|>", long), (*SPECIAL[:2], long))
    tokenizer.save_pretrained(base)
    model = changed(base, tmp_path / "model", EMBEDDINGS, {END: 0.0})
    [words] = advice(model, model, TARGETS)
    assert len(words) == LONGEST_ADVICE


def test_turns_that_end_with_text_are_told(tmp_path: Path) -> None:
    text = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    header = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    base = write_model(tmp_path / "base", chat_template=text + header)
    [words] = advice(base, base, TARGETS)
    assert "generation does not stop by itself" in words


def test_a_model_without_template_needs_none(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", chat_template=None)
    assert advice(changed(base, tmp_path / "model", EMBEDDINGS, {END: 0.0}), base, TARGETS) == ()

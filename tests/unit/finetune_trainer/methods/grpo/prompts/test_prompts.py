"""GRPO's rows: what is refused of them, what is drawn after, what reaches the rewards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import BadRows, DataFormat
from finetune_trainer.data.check import DataFile
from finetune_trainer.data.dataset import read_index
from finetune_trainer.methods.grpo.prompts.dataset import Prompts, open_prompts
from finetune_trainer.methods.registry import method_of
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from support.grpo.configs import grpo_config
from support.models.faulty_files import CANARY, PROMPTS, Planted, prompt
from support.models.tiny_llama import CHATML, byte_tokenizer, write_rows
from support.trainer.parts import run_of

RIGHT = {"name": "right", "exact": {}}


def prepared(
    directory: Path,
    train: Path,
    ranks: Ranks,
    *,
    template: str | None = CHATML,
    on_bad_row: BadRows = BadRows.FAIL,
    data_format: DataFormat = DataFormat.AUTO,
    rewards: tuple[Any, ...] = (RIGHT,),
) -> Prepared:
    model = directory / "model"
    byte_tokenizer(template).save_pretrained(model)
    config = grpo_config(
        directory,
        grpo={"rewards": rewards, "sampling": {"maxTokens": 64}},
        training={"sequenceLength": 256},
    )
    data = config.recipe.data.model_copy(update={"on_bad_row": on_bad_row})
    config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"data": data})})
    files = [DataFile.counted("s3://d/train.jsonl", train, data_format)]
    form = method_of(config.recipe.method).form(config.recipe)
    return prepare(run_of(config, ranks), form, model, files)


def of(rows: list[Any], directory: Path, ranks: Ranks, **options: Any) -> Prompts:
    train = write_rows(directory / "train.jsonl", rows)
    return open_prompts(prepared(directory, train, ranks, **options).train)


def text(prompts: Prompts, index: int, directory: Path) -> str:
    tokenizer = load_tokenizer(directory / "model")
    decoded: str = tokenizer.decode(prompts.tokens(index))
    return decoded


@pytest.mark.parametrize("planted", PROMPTS, ids=lambda planted: planted.id)
def test_a_fault_ends_the_run(planted: Planted, tmp_path: Path, alone: Ranks) -> None:
    train, _ = planted.write(tmp_path)
    with pytest.raises(Failure) as caught:
        prepared(tmp_path, train, alone)
    assert caught.value.reason is Reason.DATA_INVALID
    [line] = caught.value.message.splitlines()
    assert line.startswith(f"s3://d/train.jsonl row {planted.at}: ")
    assert planted.words in line
    assert CANARY not in line


@pytest.mark.parametrize("planted", PROMPTS, ids=lambda planted: planted.id)
def test_a_bad_row_can_be_left_out(planted: Planted, tmp_path: Path, alone: Ranks) -> None:
    train, _ = planted.write(tmp_path)
    found = prepared(tmp_path, train, alone, on_bad_row=BadRows.SKIP)
    assert found.skipped == 1
    found_prompts = open_prompts(found.train)
    told = [found_prompts.document(index)["prompt"] for index in range(4)]
    assert told == [prompt(number)["prompt"] for number in range(4)]


def test_an_equal_prompt_is_a_warning(
    tmp_path: Path, alone: Ranks, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(of([prompt(1), prompt(2), prompt(1)], tmp_path, alone).data) == 3
    assert "s3://d/train.jsonl row 3: is row 1 again" in caplog.messages


def test_a_column_is_needed_only_by_a_builtin_reward_that_reads_it(
    tmp_path: Path, alone: Ranks
) -> None:
    rewards = ({"name": "x", "regex": {"pattern": "x"}},)
    assert len(of([{"prompt": "a"}], tmp_path, alone, rewards=rewards).data) == 1
    with pytest.raises(Failure, match="has no 'answer'"):
        of([{"prompt": "a"}], tmp_path, alone)
    assert len(of([{"prompt": "a", "answer": None}], tmp_path, alone).data) == 1  # it abstains


def test_a_format_of_other_methods_is_refused(tmp_path: Path, alone: Ranks) -> None:
    with pytest.raises(Failure, match="PromptCompletion is not for GRPO"):
        of([prompt(1)], tmp_path, alone, data_format=DataFormat.PROMPT_COMPLETION)


def test_a_prompt_ends_with_the_answers_header(tmp_path: Path, alone: Ranks) -> None:
    rows = [
        {"prompt": "2+2?", "answer": "4"},
        {"prompt": [{"role": "user", "content": "2+2?"}], "answer": "4"},
        {
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": "2+2?"},
            ],
            "answer": "4",
        },
    ]
    found = of(rows, tmp_path, alone)
    asked = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert text(found, 0, tmp_path) == asked
    assert text(found, 1, tmp_path) == asked
    before = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
    assert text(found, 2, tmp_path) == f"<|im_start|>system\nBe short.<|im_end|>\n{before}{asked}"
    assert not found.data.learned.any()


def test_text_stands_alone_without_a_template(tmp_path: Path, alone: Ranks) -> None:
    found = of([{"prompt": "2+2?", "answer": "4"}], tmp_path, alone, template=None)
    assert text(found, 0, tmp_path) == "2+2?"
    messages = [{"messages": [{"role": "user", "content": "2+2?"}], "answer": "4"}]
    with pytest.raises(Failure) as caught:
        of(messages, tmp_path, alone, template=None)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


@pytest.mark.parametrize(("length", "words"), [(1, "turn 1 (user) is left out"), (300, "tokens")])
def test_a_prompt_that_fits_is_whole(length: int, words: str, tmp_path: Path, alone: Ranks) -> None:
    drops = CHATML.replace("message['content']", "(message['content'] | replace('b', 'c'))")
    asked = {"prompt": "a" * length + "b", "answer": "4"}
    with pytest.raises(Failure, match=re.escape(words)):
        of([prompt(1), asked], tmp_path, alone, template=drops)


def test_a_prompt_of_which_no_token_is_left_is_empty(tmp_path: Path, alone: Ranks) -> None:
    """The end of a text alone: it would have ended what is to be gone on with."""
    end = byte_tokenizer(None).eos_token
    with pytest.raises(Failure, match="row 2: has a prompt of which the tokenizer leaves nothing"):
        of([prompt(1), {"prompt": end, "answer": "4"}], tmp_path, alone, template=None)


@pytest.mark.parametrize("template", [CHATML, None])
def test_a_tokenizer_of_another_model_is_refused(
    template: str | None, tmp_path: Path, alone: Ranks
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"vocab_size": 10}')
    with pytest.raises(Failure, match=r"makes token \d+, but the model has 10 ") as caught:
        of([prompt(1)], tmp_path, alone, template=template)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


def test_rewards_get_rows_as_they_were_written(tmp_path: Path, alone: Ranks) -> None:
    turns = [{"role": "user", "content": "é?", "mine": 1}]
    rows = [
        {"prompt": "a", "answer": "1", "meta": {"deep": [1, None]}},
        {"messages": turns, "answer": "ü", "completion": "gold"},
    ]
    found = of(rows, tmp_path, alone)
    assert found.columns == ("answer", "completion", "meta")
    assert found.document(0) == {
        "prompt": "a",
        "columns": {"answer": "1", "meta": {"deep": [1, None]}},
    }
    assert found.document(1) == {"prompt": turns, "columns": {"answer": "ü", "completion": "gold"}}


def test_prompts_of_other_needs_or_lengths_are_encoded_anew(tmp_path: Path, alone: Ranks) -> None:
    rewards = ({"name": "x", "regex": {"pattern": "x"}},)
    of([prompt(1)], tmp_path, alone)
    of([prompt(1)], tmp_path, alone)
    assert len(list(tmp_path.glob("scratch/encoded/*/index.json"))) == 1
    of([prompt(1)], tmp_path, alone, rewards=rewards)
    assert len(list(tmp_path.glob("scratch/encoded/*/index.json"))) == 2


def test_prompts_that_are_not_whole_are_encoded_anew(tmp_path: Path, alone: Ranks) -> None:
    of([prompt(1), prompt(2)], tmp_path, alone)
    [index] = tmp_path.glob("scratch/encoded/*/index.json")
    documents = index.with_name("documents")
    documents.write_bytes(documents.read_bytes()[:-1])
    assert read_index(index.parent) is None
    found = of([prompt(1), prompt(2)], tmp_path, alone)
    assert found.document(1)["columns"] == {"answer": "2"}
    assert json.loads(index.with_name("columns.json").read_text()) == ["answer"]

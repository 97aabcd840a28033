"""A reward model's score is its only logit, for the dialogue as its own tokenizer has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from finetune_rewards.scores.samples import Item, Samples, Text, Turn
from finetune_trainer.methods.grpo.rewards.reward_model import RewardModel
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.process.distributed import Ranks
from support.models.tiny_llama import byte_tokenizer
from support.models.tolerance import TINY_MODEL, assert_close
from support.rewards.reward_models import CLOSED, judged, opened, write_judge

TEXTS = ["4", "four, I think", "x" * 40, *(f"{n} or {n + 1}" * (n % 5 + 1) for n in range(9))]
QUESTION: list[Turn] = [{"role": "system", "content": "sums"}, {"role": "user", "content": "2+2?"}]

Ask = Callable[[Samples], list[Item]]


def samples(prompt: Text, completions: list[Any]) -> Samples:
    return Samples([prompt] * len(completions), completions, [[1]] * len(completions))


def answered(texts: list[str]) -> list[Text]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def rendered(directory: Path, dialogues: list[list[Turn]]) -> list[str]:
    tokenizer = load_tokenizer(directory / "judge")
    return [tokenizer.apply_chat_template(turns, tokenize=False) for turns in dialogues]


def by_itself(model: Any, directory: Path, text: str, *, special: bool = False) -> float:
    """Return the logit by transformers, of a row without padding."""
    tokenizer = load_tokenizer(directory / "judge")
    model.config.pad_token_id = None  # it then pools at the last token
    ids = torch.tensor([tokenizer(text, add_special_tokens=special)["input_ids"]])
    with torch.no_grad():
        return float(model(ids).logits[0, 0])


@pytest.fixture
def asking(tmp_path: Path, alone: Ranks) -> Ask:
    def ask(asked: Samples) -> list[Item]:
        with opened(tmp_path, alone) as panel:
            return panel.score(asked)["judge"].items

    return ask


def scores(items: list[Item]) -> list[float]:
    assert all(item.error is None for item in items)
    return [item.score for item in items if item.score is not None]


@pytest.mark.parametrize("model_type", ["llama", "bert", "roberta", "gpt2"])
def test_a_dialogue_is_scored_whatever_stands_beside_it(
    asking: Ask, tmp_path: Path, model_type: str
) -> None:
    judge = write_judge(tmp_path / "judge", model_type)
    turns = [[*QUESTION, {"role": "assistant", "content": text}] for text in TEXTS]
    texts = rendered(tmp_path, turns)
    assert texts[0].endswith(load_tokenizer(tmp_path / "judge").eos_token)
    found = scores(asking(samples(QUESTION, answered(TEXTS))))
    wanted = [by_itself(judge, tmp_path, text) for text in texts]
    assert_close(found, wanted, terms=TINY_MODEL)
    assert len({round(score, 4) for score in found}) == len(TEXTS)
    again = scores(asking(samples(QUESTION, answered(TEXTS[::-1] * 2))))
    assert_close(again, found[::-1] * 2, terms=TINY_MODEL)


def test_text_is_asked_of_a_chat_model_as_a_turn(asking: Ask, tmp_path: Path) -> None:
    judge = write_judge(tmp_path / "judge")
    turns = [
        [{"role": "user", "content": "2+2="}, {"role": "assistant", "content": text}]
        for text in TEXTS
    ]
    wanted = [by_itself(judge, tmp_path, text) for text in rendered(tmp_path, turns)]
    assert_close(scores(asking(samples("2+2=", list(TEXTS)))), wanted, terms=TINY_MODEL)


@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test_without_a_template_texts_stand_as_they_are(
    asking: Ask, tmp_path: Path, model_type: str
) -> None:
    judge = write_judge(tmp_path / "judge", model_type, template=None)
    wanted = [by_itself(judge, tmp_path, "2+2=" + text, special=True) for text in TEXTS]
    assert_close(scores(asking(samples("2+2=", list(TEXTS)))), wanted, terms=TINY_MODEL)
    wanted = [by_itself(judge, tmp_path, "sums\n2+2?\n" + text, special=True) for text in TEXTS]
    assert_close(scores(asking(samples(QUESTION, answered(TEXTS)))), wanted, terms=TINY_MODEL)


@pytest.mark.parametrize("spare", [0, 1])
def test_rows_may_end_with_any_token_and_hold_all_there_are(
    asking: Ask, tmp_path: Path, spare: int
) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    judge = write_judge(tmp_path / "judge", tokenizer=tokenizer, vocab_size=3 + spare)
    texts = ["a b", "b c c a", "c", "c a b"]
    wanted = [by_itself(judge, tmp_path, text) for text in texts]
    assert_close(scores(asking(samples("", texts))), wanted, terms=TINY_MODEL)


def test_frequencies_that_follow_the_longest_row_are_each_rows_own(
    asking: Ask, tmp_path: Path
) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 4.0, 9.0, 16.0],
        "original_max_position_embeddings": 40,
    }
    judge = write_judge(tmp_path / "judge", rope_parameters=rope, template=None)
    wanted = [by_itself(judge, tmp_path, text, special=True) for text in ["?", "?" + "z" * 60]]
    assert_close(scores(asking(samples("?", ["", "z" * 60]))), wanted, terms=TINY_MODEL)


@pytest.mark.parametrize(
    ("model_type", "positions", "longest"),
    [("llama", 32, 32), ("bert", 32, 32), ("roberta", 34, 32)],
)
def test_a_dialogue_beyond_the_positions_costs_no_other_its_score(
    asking: Ask, tmp_path: Path, model_type: str, positions: int, longest: int
) -> None:
    judge = write_judge(
        tmp_path / "judge",
        model_type,
        template=None,
        max_position_embeddings=positions,
        pad_token_id=1,  # after which the positions of RoBERTa begin
    )
    fits = "x" * (longest - 2)  # the first token of all, and the prompt
    found = asking(samples("?", ["4", fits + "x", fits]))
    assert found[1] == Item(
        error=f"the dialogue has {longest + 1} tokens, but the model positions for {longest}"
    )
    wanted = [by_itself(judge, tmp_path, "?" + text, special=True) for text in ("4", fits)]
    assert_close(scores([found[0], found[2]]), wanted, terms=TINY_MODEL)


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ("raise_exception('no odd words here')", "no odd words here"),
        ("raise_exception('not ' + m['content'])", "TemplateError"),
        ("m['content'] + 1", "TypeError"),
        ("1 // 0", "ZeroDivisionError"),
        ("m['content'].split('')", "ValueError"),
        ("'{1}'.format('one')", "IndexError"),
        ("m['content'].nothing.more", "UndefinedError"),
    ],
)
def test_a_dialogue_that_the_template_refuses_costs_no_other_its_score(
    asking: Ask, tmp_path: Path, refusal: str, told: str
) -> None:
    odd = "{% for m in messages %}{% if 'odd' in m['content'] %}{{ " + refusal + " }}{% endif %}"
    judge = write_judge(tmp_path / "judge", template=odd + "{% endfor %}" + CLOSED)
    found = asking(samples("2+2?", ["4", "an odd one", "5"]))
    why = f"the model's tokenizer or chat template refuses it: {told}"
    assert found[1] == Item(error=why)
    turns = [
        [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": text}]
        for text in ("4", "5")
    ]
    wanted = [by_itself(judge, tmp_path, text) for text in rendered(tmp_path, turns)]
    assert_close(scores([found[0], found[2]]), wanted, terms=TINY_MODEL)


@pytest.mark.parametrize(
    ("spent", "what"),
    [("range(99999) %}{% for b in range(99999)", "time"), ("'x' * 10**11", "memory")],
)
def test_a_dialogue_without_end_costs_no_other_its_score(
    asking: Ask, tmp_path: Path, spent: str, what: str
) -> None:
    loop = "{% for a in " + spent + " %}{% endfor %}" + "{% endfor %}" * spent.count("for")
    odd = "{% for m in messages %}{% if 'odd' in m['content'] %}" + loop + "{% endif %}"
    write_judge(tmp_path / "judge", template=odd + "{% endfor %}" + CLOSED)
    found = asking(samples("2+2?", ["4", "an odd one"]))
    assert found[0].score is not None
    said = f"the dialogue takes more {what} in the model's chat template than it may (2 s, 1 GiB)"
    assert found[1] == Item(error=said)


def test_odd_dialogues_have_errors_of_their_own(asking: Ask, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(None)
    tokenizer.add_tokens(["<unknown>"])
    write_judge(tmp_path / "judge", tokenizer=tokenizer, vocab_size=259)
    found = asking(samples("", ["4", "", "<unknown>", "a lone \ud800", "\x00"]))
    assert [item.score is None for item in found] == [False, True, True, True, False]
    assert found[1].error == "the dialogue is empty"
    assert found[2].error == "the tokenizer has a token 259 that the model has not"
    assert "tokenizer or chat template refuses it" in (found[3].error or "")


def test_a_row_without_a_finite_logit_is_an_error(asking: Ask, tmp_path: Path) -> None:
    judge = write_judge(tmp_path / "judge", template=None)
    broken = load_tokenizer(tmp_path / "judge")("!", add_special_tokens=False)["input_ids"]
    judge.get_input_embeddings().weight.data[broken] = float("nan")
    judge.save_pretrained(tmp_path / "judge")
    found = asking(samples("?", ["4", "5!", "6"]))
    assert found[1] == Item(error="the score is nan")
    assert len(set(scores([found[0], found[2]]))) == 2


def before_each(judge: RewardModel, look: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Have the judge's model look at what it is given, and fail as that does."""
    judge._model.register_forward_pre_hook(lambda _, __, given: look(given), with_kwargs=True)


def test_a_row_at_which_the_model_fails_costs_no_other_its_score(tmp_path: Path) -> None:
    write_judge(tmp_path / "judge", template=None)
    judge = RewardModel(tmp_path / "judge", judged(tmp_path), torch.device("cpu"))
    asked = samples("?", list(TEXTS))
    before = judge(asked)
    longest = max(len(text) for text in TEXTS)

    def small(given: dict[str, torch.Tensor]) -> None:
        if given["input_ids"].shape[1] > longest:
            raise torch.OutOfMemoryError("no memory for it")

    before_each(judge, small)
    found = judge(asked)
    at = [index for index, text in enumerate(TEXTS) if len(text) == longest]
    for index, item in enumerate(found):
        if index in at:
            assert item == Item(error=f"the model fails on {longest + 2} tokens: no memory for it")
        else:
            assert item.error is None
    others = [index for index in range(len(TEXTS)) if index not in at]
    assert others
    again, once = (scores([items[index] for index in others]) for items in (found, before))
    assert_close(again, once, terms=TINY_MODEL)


def test_rows_of_about_one_length_are_asked_together(tmp_path: Path) -> None:
    write_judge(tmp_path / "judge", template=None)
    judge = RewardModel(tmp_path / "judge", judged(tmp_path), torch.device("cpu"))
    lengths: list[list[int]] = []

    def count(given: dict[str, torch.Tensor]) -> None:
        assert not torch.is_grad_enabled()
        lengths.append(given["attention_mask"].sum(1).tolist())

    before_each(judge, count)
    judge(samples("?", list(TEXTS)))
    assert [len(rows) for rows in lengths] == [8, 4]
    assert max(lengths[0]) <= min(lengths[1])


def test_a_device_that_is_lost_ends_the_run(tmp_path: Path) -> None:
    write_judge(tmp_path / "judge")
    judge = RewardModel(tmp_path / "judge", judged(tmp_path), torch.device("cpu"))

    def lost(given: dict[str, torch.Tensor]) -> None:
        raise torch.AcceleratorError("device-side assert")

    before_each(judge, lost)
    with pytest.raises(torch.AcceleratorError):
        judge(samples("?", ["4"]))

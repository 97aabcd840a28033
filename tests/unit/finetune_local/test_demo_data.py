"""The quickstart's rows."""

import json

from finetune_local.demo_data import (
    HELD_OUT_ROWS,
    TRAIN_ROWS,
    to_jsonl,
    to_prompts,
    train_and_held_out,
)


def test_rows_are_the_same_every_time_and_no_question_is_in_both_sets() -> None:
    train, held_out = train_and_held_out()
    assert (train, held_out) == train_and_held_out()
    assert (len(train), len(held_out)) == (TRAIN_ROWS, HELD_OUT_ROWS)
    assert not {row.question for row in train} & {row.question for row in held_out}


def test_jsonl_holds_the_answer_only() -> None:
    train, _ = train_and_held_out()
    lines = [json.loads(line) for line in to_jsonl(train).decode().splitlines()]
    assert [line["completion"] for line in lines] == [row.answer for row in train]
    assert all(line["completion"].lstrip("-").isdigit() for line in lines)


def test_prompts_hold_the_answer_for_the_rewards_only() -> None:
    train, _ = train_and_held_out()
    lines = [json.loads(line) for line in to_prompts(train).decode().splitlines()]
    assert lines == [{"prompt": row.question, "answer": row.answer} for row in train]

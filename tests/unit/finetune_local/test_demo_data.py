"""The quickstart's rows."""

import json

from finetune_local.demo_data import (
    HELD_OUT_ROWS,
    TRAIN_ROWS,
    to_jsonl,
    train_and_held_out,
)


def test_rows_are_the_same_every_time_and_no_question_is_in_both_sets() -> None:
    train, held_out = train_and_held_out()
    assert (train, held_out) == train_and_held_out()
    assert (len(train), len(held_out)) == (TRAIN_ROWS, HELD_OUT_ROWS)
    assert not {row.question for row in train} & {row.question for row in held_out}


def test_rows_hold_a_question_and_its_answer_alone() -> None:
    train, _ = train_and_held_out()
    lines = [json.loads(line) for line in to_jsonl(train, "answer").decode().splitlines()]
    assert lines == [{"prompt": row.question, "answer": row.answer} for row in train]


def test_sums_and_differences_of_small_and_large_numbers_are_right() -> None:
    kinds = set()
    for row in train_and_held_out()[0]:
        left, sign, right = row.question.removesuffix(" =").split()[-3:]
        assert int(row.answer) == int(left) + int(f"{sign}{right}"), row
        assert len(left) == len(right)
        kinds.add((len(left), sign))
    assert kinds == {(1, "+"), (1, "-"), (2, "+"), (2, "-")}

"""A part of samples is a part of all they hold."""

from __future__ import annotations

from finetune_rewards.scores.samples import Answer, Item, Samples, text_of


def test_a_part_holds_its_own_rows_and_the_step() -> None:
    whole = Samples(
        ["p", "q", "r"], ["a", "b", "c"], [[1], [2], [3]], {"x": [7, 8, 9]}, 5, ["", "<a>", ""]
    )
    assert whole.slice(1, 2) == Samples(["q"], ["b"], [[2]], {"x": [8]}, 5, ["<a>"])
    assert whole.slice(0, 9) == whole
    assert len(whole.slice(2, 4)) == 1


def test_the_text_of_a_completion_is_that_of_its_messages() -> None:
    turns = [{"content": "a"}, {"content": None}, {}, {"content": "b"}]
    assert text_of("a") == "a"
    assert text_of(turns) == "a\n\n\nb"


def test_a_batch_that_failed_has_an_error_each() -> None:
    assert Answer.failed(2, "no", 1.5) == Answer([Item(error="no")] * 2, 1.5)

"""One split of a completion into thought and answer, with the prompt's end in view."""

from __future__ import annotations

import pytest

from finetune_rewards.reading.thought import answer_of, opened_by


@pytest.mark.parametrize(
    ("opened", "completion", "answer"),
    [
        ("", "b", "b"),
        ("", "<think>a</think>b", "b"),
        ("", "<think>a", None),
        ("", "First: <think>a", None),
        ("", "a</think>b", "b"),
        ("<think>\n", "a</think>b", "b"),
        ("<think>\n", "a", None),
        ("<think>\n", "", None),
        ("<think>\n\n</think>\n\n", "b", "b"),
        ("", "<think>a</think>b<think>c", None),
        ("", "<think>a</think>b<think>c</think>d", "d"),
        ("", "Write `<think>` before it", "Write `<think>` before it"),
        ("", "<think>the tag '</think>' ends</think>b", "b"),
        ("", "<think>it is `5`</think>b", "b"),
        ("", "[THINK]a[/THINK]b", "b"),
        ("[THINK]", "a", None),
        ("", "<|START_THINKING|>a<|END_THINKING|>b", "b"),
        ("", "<seed:think>a</seed:think>b", "b"),
        ("", "<reasoning>a</reasoning>b", "b"),
        ("", "<|channel|>analysis<|message|>a<|end|>", None),
        (
            "",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
            "b",
        ),
    ],
)
def test_what_follows_the_thought_is_the_answer(
    opened: str, completion: str, answer: str | None
) -> None:
    assert answer_of(completion, opened) == answer


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n", ""),
        ("<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("Use <think> tags.<|Assistant|>", ""),
        ("Solve it. <think>", "<think>"),
        ("[/INST][THINK]", "[THINK]"),
        ("assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
        ("is a < b", ""),
        ("", ""),
    ],
)
def test_what_a_prompt_ends_with_is_opened(prompt: str, opened: str) -> None:
    assert opened_by(prompt) == opened

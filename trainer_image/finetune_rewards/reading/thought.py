"""One split of a completion into thought and answer, made with the prompt's end in view.

A template's header may open the thought (`<|im_start|>assistant <think>`), or open and close it,
and then the completion holds but the rest.
"""

from __future__ import annotations

import re

# What opens a thought and what closes it, as models write them.
_PAIRS = (
    *((f"<{tag}>", f"</{tag}>") for tag in ("think", "thinking", "thought", "reasoning")),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
)
_OPENING = {opening for opening, _ in _PAIRS}
# A mark in quotes is spoken of, not made.
_MARK = re.compile(
    "|".join(rf"(?<![`'\"]){re.escape(m)}|{re.escape(m)}(?![`'\"])" for p in _PAIRS for m in p)
)
_TAGS = re.compile(
    r"(?:(?:</?[A-Za-z_][\w:.-]*>|\[/?THINK\]|<\|?channel\|?>\w*(?:<\|message\|>)?"
    r"|<\|(?:START|END)_THINKING\|>)\s*)+\Z"
)


def opened_by(prompt: str) -> str:
    """Return the tags that a prompt ends with, white space among them: what follows stands there as
    if it began with them."""
    found = _TAGS.search(prompt[-256:])
    return found[0] if found else ""


def answer_of(completion: str, opened: str = "") -> str | None:
    """Return what stands after a completion's thought, all of it where it has none.

    None where the thought is not finished: then there is no answer. `opened` are the tags that the
    prompt ended with.
    """
    text = opened + completion
    marks = list(_MARK.finditer(text))
    if not marks:
        return completion
    last = marks[-1]
    if last[0] in _OPENING:
        return None
    return text[max(last.end(), len(opened)) :]

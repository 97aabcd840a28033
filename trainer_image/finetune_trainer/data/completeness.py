"""Whether a rendering holds all that its dialogue says: templates leave out things in silence."""

from __future__ import annotations

import json

from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Dialogue

THOUGHT_BEGIN, THOUGHT_END = "<think>", "</think>"


def check_complete(text: str, dialogue: Dialogue) -> None:
    """Raise RowError unless all that the dialogue says is in its rendering."""
    at = 0
    for index, message in enumerate(dialogue.messages):
        words = message.content.strip()
        if message.role == "assistant":
            words = words.rpartition(THOUGHT_END)[2].strip()
        if message.role in ("user", "assistant"):  # others may be moved to another place
            found = text.find(words, at)
            at = found + len(words)
        else:
            quoted = json.dumps(words, ensure_ascii=False)[1:-1]
            found = max(text.find(words), text.find(quoted))
        if found < 0:
            raise RowError(
                Kind.TEMPLATE_DROPS_TURN,
                f"turn {index + 1} ({message.role}) is left out, or changed, by the model's chat "
                "template",
            )
        if any(call.name not in text for call in message.tool_calls):
            raise RowError(
                Kind.TEMPLATE_DROPS_TOOLS,
                f"turn {index + 1} calls a tool, which the model's chat template leaves out",
            )
    for tool in dialogue.tools:
        if tool["function"]["name"] not in text:
            raise RowError(
                Kind.TEMPLATE_DROPS_TOOLS, "has tools, which the model's chat template leaves out"
            )


def drops_reasoning(text: str, dialogue: Dialogue) -> bool:
    """Tell whether the reasoning of a turn that is learned is not in the rendering.

    Raises RowError if it is the last one's: that is what the row is there to teach.
    """
    learned = [i for i in range(len(dialogue.messages)) if dialogue.learns(i)]
    dropped = [
        index
        for index in learned
        if any(
            _is_missing(thought.strip(), text, dialogue)
            for thought in _thoughts(dialogue.messages[index])
        )
    ]
    if dropped and dropped[-1] == learned[-1]:
        raise RowError(
            Kind.LAST_REASONING_DROPPED,
            f"turn {dropped[-1] + 1} has reasoning that the model's chat template leaves out; "
            "remove it, or use a template that writes it",
        )
    return bool(dropped)


def _is_missing(thought: str, text: str, dialogue: Dialogue) -> bool:
    """Tell whether a thought is not in a text, but for what turns say in the same words."""
    if not thought:
        return False
    said = (m for m in dialogue.messages if m.role in ("user", "assistant"))
    words = (m.content if m.role == "user" else m.content.rpartition(THOUGHT_END)[2] for m in said)
    return text.count(thought) <= sum(each.count(thought) for each in words)


def thought_of(message: Message) -> tuple[str, str]:
    """Return a message's reasoning as it is to be written, "" for none, and what follows it."""
    if message.reasoning:
        return message.reasoning.strip("\n") + "\n", "\n\n"
    before, closed, answer = message.content.rpartition(THOUGHT_END)
    gap = answer[: len(answer) - len(answer.lstrip())]
    return before.rpartition(THOUGHT_BEGIN)[2], gap if closed else ""


def _thoughts(message: Message) -> tuple[str, str]:
    """Return the reasoning in a message's own field, and that in its content; "" for none."""
    before, _, _ = message.content.rpartition(THOUGHT_END)
    return message.reasoning or "", before.rpartition(THOUGHT_BEGIN)[2]

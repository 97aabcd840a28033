"""What fields of other tools mean: the one table, and how a value of each is obeyed or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from finetune_trainer.data.faults import Kind, RowError


class Meaning(StrEnum):
    """What a field says."""

    LEARNED = "whether it is learned"  # true or 1, false or 0
    CONTEXT = "whether it is context"
    REASONING = "the reasoning before the answer"
    CALL = "a tool call"
    PREFERENCE = "an answer that is better or worse than another"
    REFUSED = "refused"


@dataclass(frozen=True)
class Foreign:
    """A field, what it means, the tools that write it, and of what is refused what to do."""

    name: str
    meaning: Meaning
    tools: str
    remedy: str = ""


_TEXT_ALONE = "only text can be learned here"
_OFFSETS = "learn the whole turn, or none of it: give the turn `train`"
_PREFERENCE = (
    "SFT does not learn from which answer is better; to learn the better ones alone set "
    "data.columns.completion: chosen (or data.columns.messages, where that is a whole dialogue)"
)
_TOKENISED = "give text; the tokens are made with the model's own tokenizer"

TURN_FIELDS = {
    field.name: field
    for field in (
        Foreign("weight", Meaning.LEARNED, "OpenAI, Mistral, Together"),
        Foreign("train", Meaning.LEARNED, "Axolotl"),
        Foreign("training", Meaning.LEARNED, "Axolotl"),
        Foreign("trainable", Meaning.LEARNED, "several"),
        Foreign("loss", Meaning.LEARNED, "ms-swift"),
        Foreign("loss_scale", Meaning.LEARNED, "ms-swift"),
        Foreign("loss_mask", Meaning.LEARNED, "several"),
        Foreign("loss_weight", Meaning.LEARNED, "several"),
        Foreign("masked", Meaning.CONTEXT, "torchtune"),
        Foreign("mask", Meaning.REFUSED, "several", "say `train: true` or `train: false`"),
        Foreign("train_detail", Meaning.REFUSED, "Axolotl", _OFFSETS),
        Foreign("training_detail", Meaning.REFUSED, "Axolotl", _OFFSETS),
        Foreign("reasoning", Meaning.REASONING, "vLLM, OpenRouter"),
        Foreign("reasoning_content", Meaning.REASONING, "DeepSeek, Qwen"),
        Foreign("thinking", Meaning.REASONING, "TRL, gpt-oss, Ollama"),
        Foreign("reasoning_details", Meaning.REFUSED, "OpenRouter", "write reasoning_content"),
        Foreign("thinking_blocks", Meaning.REFUSED, "LiteLLM", "write reasoning_content"),
        Foreign("channel", Meaning.REFUSED, "Harmony", "write analysis as reasoning_content"),
        Foreign("recipient", Meaning.REFUSED, "Harmony", "write the call as tool_calls"),
        Foreign("function_call", Meaning.CALL, "OpenAI, before tools"),
        Foreign("refusal", Meaning.REFUSED, "OpenAI", "write what is to be said as content"),
        Foreign("image", Meaning.REFUSED, "several", _TEXT_ALONE),
        Foreign("images", Meaning.REFUSED, "Ollama", _TEXT_ALONE),
        Foreign("audio", Meaning.REFUSED, "OpenAI", _TEXT_ALONE),
        Foreign("videos", Meaning.REFUSED, "several", _TEXT_ALONE),
    )
}
ROW_FIELDS = {
    field.name: field
    for field in (
        Foreign("weight", Meaning.LEARNED, "several"),
        Foreign("sample_weight", Meaning.LEARNED, "several"),
        Foreign("loss_weight", Meaning.LEARNED, "several"),
        Foreign("loss_scale", Meaning.LEARNED, "ms-swift"),
        Foreign("loss_mask", Meaning.LEARNED, "several"),
        Foreign("train", Meaning.LEARNED, "several"),
        Foreign("trainable", Meaning.LEARNED, "several"),
        Foreign("kto_tag", Meaning.LEARNED, "LLaMA-Factory"),
        Foreign("label", Meaning.LEARNED, "TRL, ms-swift"),
        Foreign("masked", Meaning.CONTEXT, "several"),
        Foreign("mask", Meaning.REFUSED, "NeMo", "give assistant turns that are context `train`"),
        Foreign("chosen", Meaning.PREFERENCE, "TRL, LLaMA-Factory", _PREFERENCE),
        Foreign("rejected", Meaning.PREFERENCE, "TRL, LLaMA-Factory", _PREFERENCE),
        Foreign("rejected_response", Meaning.PREFERENCE, "ms-swift", _PREFERENCE),
        Foreign("rejected_messages", Meaning.PREFERENCE, "ms-swift", _PREFERENCE),
        Foreign(
            "chat_template_kwargs", Meaning.REFUSED, "TRL", "set spec.model.chatTemplateKwargs"
        ),
        Foreign("chat_template", Meaning.REFUSED, "several", "set spec.model.chatTemplate"),
        Foreign("input_ids", Meaning.REFUSED, "TRL, Axolotl", _TOKENISED),
        Foreign("completion_mask", Meaning.REFUSED, "TRL", _TOKENISED),
        Foreign("assistant_masks", Meaning.REFUSED, "TRL", _TOKENISED),
        Foreign("image", Meaning.REFUSED, "TRL", _TEXT_ALONE),
        Foreign("images", Meaning.REFUSED, "TRL, LLaMA-Factory, ms-swift", _TEXT_ALONE),
        Foreign("videos", Meaning.REFUSED, "LLaMA-Factory, ms-swift", _TEXT_ALONE),
        Foreign("audios", Meaning.REFUSED, "LLaMA-Factory, ms-swift", _TEXT_ALONE),
        Foreign("audio", Meaning.REFUSED, "several", _TEXT_ALONE),
        Foreign("objects", Meaning.REFUSED, "ms-swift", _TEXT_ALONE),
    )
}


def says(field: Foreign, value: Any, where: str) -> bool:
    """Return what a field of LEARNED or CONTEXT says: whether it is learned; raise RowError."""
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        given = "a fraction" if isinstance(value, float) else "neither 0 nor 1, true nor false"
        raise RowError(
            Kind.FOREIGN_FIELD,
            f"{where}'{field.name}' is {given}; put rows that count less or more into a file of "
            "their own and set data.train[].weight",
        )
    return bool(value) is (field.meaning is Meaning.LEARNED)


def refuse(field: Foreign, value: Any, where: str) -> None:
    """Raise RowError for a field that can not be obeyed, unless it says nothing."""
    if value in ("", [], {}):  # nor null: no such key is there
        return
    preference = field.meaning is Meaning.PREFERENCE
    raise RowError(
        Kind.PREFERENCE_DATA if preference else Kind.FOREIGN_FIELD,
        f"{where}'{field.name}' ({field.tools}) can not be obeyed: {field.remedy}",
    )


def is_learned(fields: Mapping[str, Foreign], value: Mapping[str, Any], where: str) -> bool | None:
    """Return what all fields say of whether it is learned, None for nothing; raise RowError."""
    answers = {
        says(fields[name], item, where)
        for name, item in value.items()
        if name in fields
        and item is not None
        and fields[name].meaning in (Meaning.LEARNED, Meaning.CONTEXT)
    }
    if len(answers) == 2:
        raise RowError(
            Kind.FOREIGN_FIELD, f"{where}fields contradict each other on whether it is learned"
        )
    return next(iter(answers), None)

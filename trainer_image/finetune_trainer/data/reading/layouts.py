"""Which column of a row is what.

There are two: a list of turns, and a prompt with its answer; both are known by the names that the
field uses for them. Which column is what is found once for all rows that have the same columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.reading.fields import ROW_FIELDS, Foreign, Meaning
from finetune_trainer.data.reading.names import missing, near

TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog")
PROMPTS = ("prompt", "query", "question", "instruction", "problem", "input")
ANSWERS = ("completion", "response", "output", "answer", "solution", "target")
PAIR = ("prompt", "completion")
INPUTS = ("input", "context")  # what an instruction is about
CHOSEN_BY = frozenset({"messages", "completion"})  # of data.columns: what is learned
BESIDE = {
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "reasoning": ("reasoning", "reasoning_content", "thinking"),
}
MAP = "set data.columns to say which column is which"
WHOLE = {
    "text": "text alone, of which nothing tells what is to be learned: write prompt and completion",
    "segments": "segments of Axolotl's: write messages, or prompt and completion",
    "contents": "Gemini's contents: write messages, each with role and content",
}


@dataclass(frozen=True)
class Layout:
    """Which columns of a row are what."""

    format: DataFormat
    columns: dict[str, str]  # by our name
    foreign: tuple[tuple[str, Foreign], ...] = ()
    ignored: frozenset[str] = frozenset()

    @property
    def text(self) -> bool:
        """Tell whether a prompt and a completion of text are text alone, by their names."""
        names = {self.columns[name].lower() for name in ("prompt", "completion")}
        return names == {"prompt", "completion"} and len(self.columns) == 2


@lru_cache(maxsize=4096)  # rows of a file share their columns
def layout_of(
    names: tuple[str, ...], wanted: DataFormat, mapped: tuple[tuple[str, str], ...] = ()
) -> Layout:
    """Return what the columns of a row are; `mapped` says it of some. Raises RowError."""
    columns = dict(mapped)
    for ours in ("messages", *PAIR):
        if ours in columns and columns[ours] not in names:
            raise unmapped(ours, columns[ours], names)
    columns = {ours: column for ours, column in mapped if column in names}
    free: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name != name.lower()):  # `prompt` before `Prompt`
        if name not in columns.values():
            free.setdefault(name.lower(), name)
    found = _found(names, wanted, columns, free)
    for ours, theirs in BESIDE.items():
        if ours != "history" or "prompt" in found:
            _add_beside(
                ours, columns.get(ours), [free[name] for name in theirs if name in free], found
            )
    used = {*found.values()}
    explicit = wanted is not DataFormat.AUTO or not columns.keys().isdisjoint(CHOSEN_BY)
    foreign = {
        name: ROW_FIELDS[name.lower()]
        for name in names
        if name.lower() in ROW_FIELDS
        and name not in used
        and not (explicit and ROW_FIELDS[name.lower()].meaning is Meaning.PREFERENCE)
    }
    return Layout(
        DataFormat.MESSAGES if "messages" in found else DataFormat.PROMPT_COMPLETION,
        found,
        tuple(foreign.items()),
        frozenset(name for name in names if name not in used and name not in foreign),
    )


def _found(
    names: tuple[str, ...], wanted: DataFormat, mapped: dict[str, str], free: dict[str, str]
) -> dict[str, str]:
    """Return the columns of the turns, or of the prompt and the answer, by our names."""
    turns = mapped.get("messages") or _first(TURNS, free)
    written = [name for name in PAIR if name in free]
    if wanted is DataFormat.AUTO:
        if "messages" in mapped or (turns and not mapped.keys() & {*PAIR}):
            if "completion" in written and "messages" not in mapped:
                raise RowError(
                    Kind.AMBIGUOUS_FORMAT,
                    "has messages as well as prompt or completion; set data.train[].format",
                )
            assert turns is not None, "either mapped or found"
            return {"messages": turns}
    elif wanted is DataFormat.MESSAGES and turns:
        return {"messages": turns}
    pair = _pair(mapped, free, wanted)
    whole = all(name in pair for name in PAIR)
    if wanted is DataFormat.MESSAGES:
        if whole or written:
            raise _mixed(DataFormat.PROMPT_COMPLETION, wanted)
        raise missing(dict.fromkeys(names), "messages")
    if whole:
        return pair
    if wanted is DataFormat.PROMPT_COMPLETION and turns:
        raise _mixed(DataFormat.MESSAGES, wanted)
    raise _no_layout(names, pair, wanted)


def _pair(mapped: dict[str, str], free: dict[str, str], wanted: DataFormat) -> dict[str, str]:
    """Return what is there of a prompt, its input and its answer; raise RowError."""
    found = {name: mapped[name] for name in (*PAIR, "input") if name in mapped}
    if "prompt" not in found:
        asked = [name for name in PROMPTS if name in free]
        beside = next((name for name in INPUTS if name in asked[1:] or name in free), None)
        if asked[:1] == ["instruction"] and beside is not None:
            asked = [name for name in asked if name != beside]
            found.setdefault("input", free[beside])
        _choose("prompt", asked, found, free)
    if "completion" not in found:
        _choose("completion", [name for name in ANSWERS if name in free], found, free)
    left = [name for name in INPUTS if name in free and free[name] not in found.values()]
    literal = wanted is not DataFormat.AUTO or all(name in free for name in PAIR)
    if left and len(found) >= len(PAIR) and not literal and "input" not in mapped:
        raise RowError(
            Kind.AMBIGUOUS_FORMAT,
            f"has '{left[0]}' beside '{found['prompt']}'; set data.columns.input: {left[0]}, "
            "or data.train[].format: PromptCompletion to leave it out",
        )
    return found


def _choose(ours: str, names: list[str], found: dict[str, str], free: dict[str, str]) -> None:
    """Add the column that is the prompt, or the answer: the one of our name, or the only one."""
    if ours in names:
        names = [ours]
    if len(names) > 1:
        raise RowError(
            Kind.AMBIGUOUS_FORMAT,
            f"has {' and '.join(names)}, of which each may be the {ours}; set data.columns.{ours}",
        )
    if names:
        found[ours] = free[names[0]]


def _add_beside(ours: str, mapped: str | None, others: list[str], found: dict[str, str]) -> None:
    """Add a column that may stand beside turns, or beside a prompt and its answer."""
    if mapped is not None:
        found[ours] = mapped
    elif len(others) > 1:
        raise RowError(Kind.AMBIGUOUS_FORMAT, f"has {' and '.join(others)}; remove one")
    elif others:
        found[ours] = others[0]


def _first(names: tuple[str, ...], free: dict[str, str]) -> str | None:
    return next((free[name] for name in names if name in free), None)


def _mixed(written: DataFormat, wanted: DataFormat) -> RowError:
    return RowError(Kind.MIXED_FORMATS, f"is written as {written} in a file of {wanted}")


def unmapped(ours: str, column: str, names: tuple[str, ...]) -> RowError:
    found = near(column, names)
    if found is None:
        return RowError(Kind.MISSING_FIELD, f"has no '{column}', which data.columns.{ours} names")
    return RowError(
        Kind.MISSPELT_FIELD,
        f"has no '{column}', which data.columns.{ours} names (found '{found}')",
    )


def _no_layout(names: tuple[str, ...], pair: dict[str, str], wanted: DataFormat) -> RowError:
    """Return what is to be said of a row of which nothing tells what is to be learned."""
    for name in names:
        if name in ROW_FIELDS and ROW_FIELDS[name].meaning is Meaning.PREFERENCE:
            field = ROW_FIELDS[name]
            return RowError(Kind.PREFERENCE_DATA, f"has '{name}': {field.remedy}")
    for ours in PAIR:
        if ours not in pair and (pair or wanted is DataFormat.PROMPT_COMPLETION):
            return missing(dict.fromkeys(names), ours)
    reason = "has neither messages nor prompt and completion"
    for ours in ("messages", *PAIR):
        found = near(ours, names)
        if found is not None:
            return RowError(Kind.MISSPELT_FIELD, f"{reason} (found '{found}')")
    for name, what in WHOLE.items():
        if name in names:
            return RowError(Kind.MISSING_FIELD, f"{reason}: it is {what}")
    return RowError(Kind.MISSING_FIELD, f"{reason}; {MAP}")

"""Data files with one fault each in otherwise good rows: one per kind that the preflight knows."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_trainer.data.faults import Kind
from support.models.tiny_llama import CHATML, byte_tokenizer

AT = 3  # the row of a planted fault
CANARY = "canary-7f3a"  # in every bad row, and never in what is said of it


def row(*turns: Any, **fields: Any) -> dict[str, Any]:
    """Return a messages row of (role, content) pairs, or of whole messages."""
    messages = [
        turn if isinstance(turn, dict) else {"role": turn[0], "content": turn[1]} for turn in turns
    ]
    return {"messages": messages, **fields}


def good(number: int) -> dict[str, Any]:
    """Return a good row, one for each number."""
    return row(("user", f"{number}?"), ("assistant", f"{number}!"))


def call(**fields: Any) -> dict[str, Any]:
    """Return an assistant turn that calls a tool."""
    return {"role": "assistant", "content": None, "tool_calls": [fields]}


ASK = ("user", CANARY)
ANSWER = ("assistant", CANARY)
CALL = call(id="c1", function={"name": "f", "arguments": "{}"})
RESULT = {"role": "tool", "content": "r", "tool_call_id": "c1"}

SYSTEM_REFUSED = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    + CHATML
)
SYSTEM_DROPPED = (
    "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}"
)
NO_THOUGHTS = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
THOUGHTS_FIRST = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")


def thoughtful(number: int) -> dict[str, Any]:
    """Return a good row whose answer begins with reasoning."""
    return row(("user", f"{number}?"), ("assistant", f"<think>\nso\n</think>{number}!"))


@dataclass(frozen=True)
class Planted:
    """A file, the row of its fault (None: all of it), and the tokenizer that shows it."""

    kind: Kind
    content: bytes
    at: int | None = AT
    eval_rows: tuple[Any, ...] = ()
    template: str | None = CHATML
    merges: tuple[tuple[str, str], ...] = ()
    words: str = ""  # a part of the reason
    name: str = field(default="")

    @property
    def id(self) -> str:
        """Return the test's name."""
        return f"{self.kind}{f'-{self.name}' if self.name else ''}"

    def write(self, directory: Path) -> tuple[Path, Path | None]:
        """Write the train file, and the eval file if there is one."""
        train = directory / "train.jsonl"
        train.write_bytes(self.content)
        held_out = directory / "eval.jsonl" if self.eval_rows else None
        if held_out is not None:
            held_out.write_bytes(b"".join(map(encoded, self.eval_rows)))
        return train, held_out

    def model(self, root: Path) -> Path:
        """Return a directory below `root` that holds a model's tokenizer, and no weights."""
        name = hashlib.sha256(repr((self.template, self.merges)).encode()).hexdigest()
        if not (root / name).exists():
            fast = byte_tokenizer(self.template, merges=list(self.merges))
            fast.save_pretrained(root / name)
        return root / name


def encoded(value: Any) -> bytes:
    """Return a row as a line."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def among(line: Any, *, others: Any = good) -> bytes:
    """Return a file whose third row is the given one."""
    planted = line if isinstance(line, bytes) else encoded(line)
    lines = [encoded(others(number)) for number in range(4)]
    return b"".join([*lines[: AT - 1], planted, *lines[AT - 1 :]])


def bad_line(kind: Kind, line: Any, words: str = "", name: str = "", **options: Any) -> Planted:
    """Return a file with one bad row."""
    return Planted(kind, among(line), words=words, name=name, **options)


def bad_file(kind: Kind, content: bytes, words: str = "", name: str = "") -> Planted:
    """Return a file that is bad as a whole."""
    return Planted(kind, content, None, words=words, name=name)


TEXT = b"".join(encoded(good(number)) for number in range(4))
DEEP = b'{"messages": ' + b"[" * 200 + b"]" * 200 + b"}\n"

FILES = [
    bad_file(Kind.EMPTY_FILE, b"", "is empty"),
    bad_file(Kind.BLANK_FILE, b" \r\n\n\t \n", "holds no row"),
    bad_file(Kind.NOT_UTF8_FILE, TEXT.decode().encode("utf-16"), "is UTF-16", "utf16"),
    bad_file(Kind.NOT_UTF8_FILE, TEXT.decode().encode("utf-16-le"), "is UTF-16", "utf16-le"),
    bad_file(Kind.NOT_UTF8_FILE, TEXT.decode().encode("utf-32"), "is UTF-32", "utf32"),
    bad_file(Kind.NOT_UTF8_FILE, TEXT.decode().encode("utf-32-be"), "is UTF-32", "utf32-be"),
    bad_file(Kind.DAMAGED_FILE, gzip.compress(TEXT)[:-9], "is cut short", "gzip"),
    bad_file(Kind.DAMAGED_FILE, b"PAR1\x15\x04" + TEXT, "no whole Parquet", "parquet"),
    bad_file(Kind.COMPRESSED, b"PK\x03\x04" + TEXT, "with zip", "zip"),
    bad_file(Kind.DAMAGED_FILE, b"\x28\xb5\x2f\xfd" + TEXT, "is damaged", "zstd"),
    bad_file(Kind.BINARY_FORMAT, b"\xff\xff\xff\xff\x10" + TEXT, "an Arrow stream", "arrow"),
    bad_file(Kind.BAD_JSON_ARRAY, json.dumps([good(1)])[:-1].encode(), "at or after row 1"),
    bad_file(Kind.PRETTY_PRINTED, json.dumps(good(1), indent=1).encode(), "pretty-printed"),
]
LINES = [
    bad_line(
        Kind.LINE_TOO_LONG,
        encoded(row(("user", CANARY * 1_600_000), ANSWER)),
        "longer than 16 MiB",
    ),
    bad_line(Kind.NOT_UTF8, '{"é": 1}\n'.encode("latin-1"), "byte 3 is not UTF-8"),
    bad_line(Kind.CONTROL_CHARACTER, b'{"messages": "\x00"}\n', "byte 15 is NUL", "nul"),
    bad_line(Kind.CONTROL_CHARACTER, b'{"messages": "\x1b"}\n', "control character", "raw"),
    bad_line(Kind.CONTROL_CHARACTER, b'{"messages": "\\u0000"}\n', r"\u0000", "escaped"),
    bad_line(Kind.BAD_JSON, b'{"messages": [\n', "at column"),
    bad_line(Kind.BAD_JSON, b'{"id": ' + b"9" * 5000 + b"}\n", "thousands of digits", "digits"),
    bad_line(Kind.NESTED_TOO_DEEPLY, DEEP, "deeper than 100"),
    bad_line(Kind.DUPLICATE_KEY, b'{"messages": [], "messages": []}\n', "key twice"),
    bad_line(Kind.NON_FINITE_NUMBER, b'{"score": NaN, "messages": []}\n', "NaN"),
    bad_line(Kind.NON_FINITE_NUMBER, b'{"score": -Infinity}\n', "Infinity", "infinity"),
    bad_line(Kind.LONE_SURROGATE, b'{"messages": "\\uD83D"}\n', "surrogate"),
    bad_line(Kind.NOT_AN_OBJECT, [CANARY], "not a JSON object"),
]
FIELDS = [
    bad_line(Kind.MISSING_FIELD, row({"role": "user"}, ANSWER), "messages[0] has no 'content'"),
    bad_line(Kind.MISSPELT_FIELD, {"mesages": CANARY}, "(found 'mesages')"),
    bad_line(
        Kind.MISSPELT_FIELD,
        row({"role": "user", "contents": CANARY}, ANSWER),
        "(found 'contents')",
        "content",
    ),
    bad_line(
        Kind.MISSPELT_FIELD,
        row(ASK, {"role": "assistant", "content": CANARY, "toolCalls": []}),
        "has 'toolCalls'; is 'tool_calls' meant?",
        "tool-calls",
    ),
    bad_line(Kind.MISSPELT_FIELD, row(ASK, ANSWER, tool=[]), "is 'tools' meant?", "tools"),
    bad_line(Kind.WRONG_TYPE, {"messages": CANARY}, "is not a list"),
    bad_line(Kind.MIXED_FORMATS, {"prompt": CANARY, "completion": CANARY}, "is written as Prompt"),
    Planted(
        Kind.AMBIGUOUS_FORMAT,
        encoded({**good(1), "prompt": CANARY}) + TEXT,
        1,
        words="messages as well as prompt",
    ),
    bad_line(Kind.EMPTY_COMPLETION, row(ASK, ("assistant", " \n")), "empty content"),
    bad_line(Kind.EMPTY_MESSAGES, row(), "'messages' is empty"),
    bad_line(
        Kind.NON_TEXT_CONTENT,
        row(("user", [{"type": "image"}]), ANSWER),
        "is a part of type 'image', not text",
    ),
    bad_line(Kind.NON_TEXT_CONTENT, row(("user", None), ANSWER), "content is null", "null"),
    bad_line(
        Kind.FOREIGN_FIELD,
        row(ASK, {"role": "assistant", "content": CANARY, "weight": 0.5}),
        "messages[1].'weight' is a fraction; put rows",
    ),
    bad_line(
        Kind.PREFERENCE_DATA,
        {"prompt": CANARY, "chosen": CANARY, "rejected": CANARY},
        "has 'chosen': SFT does not learn from which answer is better",
    ),
]
TURNS = [
    bad_line(Kind.UNKNOWN_ROLE, row(ASK, ("asistant", CANARY)), "is 'assistant' meant?"),
    bad_line(Kind.NO_ASSISTANT_TURN, row(("system", CANARY), ASK), "no assistant turn"),
    bad_line(Kind.BAD_TOOLS, row(ASK, ANSWER, tools=[{"type": CANARY}]), "tools[0] has no"),
    bad_line(
        Kind.BAD_TOOL_CALL,
        row(ASK, call(function={"name": CANARY})),
        "messages[1].tool_calls[0] has no arguments",
    ),
    bad_line(
        Kind.BAD_TOOL_CALL,
        row(ASK, call(function={"name": CANARY, "arguments": "{"})),
        "arguments is not JSON",
        "json",
    ),
    bad_line(
        Kind.RESULT_WITHOUT_CALL,
        row(ASK, CALL, {**RESULT, "tool_call_id": CANARY}, ANSWER),
        "turn 3 has the tool_call_id of no call",
    ),
    bad_line(
        Kind.OVERLAP_WITH_EVAL,
        row(ASK, ANSWER, id=1),
        "in the eval data",
        eval_rows=(good(8), row(ASK, ANSWER)),
    ),
]
WARNINGS = [
    bad_line(Kind.DUPLICATE_ROW, good(1) | {"id": 7}, "is row 2 again"),
    bad_line(Kind.LAST_TURN_NOT_ASSISTANT, row(ASK, ANSWER, ASK), "is not the assistant's"),
    bad_line(Kind.CONTROL_TOKEN, row(("user", "<|im_start|>?"), ANSWER), "a special token of"),
    bad_line(
        Kind.REASONING_DROPPED,
        row(ASK, ("assistant", "<think>why</think>so"), ASK, ANSWER),
        "reasoning",
        template=NO_THOUGHTS,
    ),
    Planted(
        Kind.REASONING_NOT_OPENED,
        among(row(ASK, ANSWER), others=thoughtful),
        words="without the reasoning",
        template=THOUGHTS_FIRST,
    ),
]
ENCODED = [
    bad_line(Kind.TOO_LONG, row(ASK, ("assistant", "x" * 300)), "more than training.sequenceL"),
    Planted(
        Kind.NO_SUPERVISED_TOKEN,
        among(
            {"prompt": "xa", "completion": "b"},
            others=lambda number: {"prompt": f"{number}", "completion": " x"},
        ),
        template=None,
        merges=(("a", "b"),),
        words="merges into the prompt",
    ),
    bad_line(
        Kind.TEMPLATE_REFUSES,
        row(("system", CANARY), ASK, ANSWER),
        "chat template: No system role",
        template=SYSTEM_REFUSED,
    ),
    bad_line(
        Kind.END_TOKEN_WRITTEN,
        row(ASK, ("assistant", "yes<|im_end|>\n")),
        "turn 2 ends with <|im_end|>, which is put after it in any case: remove it",
    ),
    bad_line(
        Kind.TURN_OPENED,
        row(ASK, ("assistant", "yes<|im_end|>\n<|im_start|>user\nno")),
        "turn 2 has <|im_start|>, which opens a turn",
    ),
    bad_line(
        Kind.LAST_REASONING_DROPPED,
        row(ASK, ("assistant", "<think>why</think>so")),
        "turn 2 has reasoning that the model's chat template leaves out; remove it",
        template=NO_THOUGHTS,
    ),
    bad_line(
        Kind.TEMPLATE_DROPS_TURN,
        row(("system", "be kind"), ASK, ANSWER),
        "turn 1 (system) is left out",
        template=SYSTEM_DROPPED + CHATML,
    ),
    bad_line(
        Kind.TEMPLATE_DROPS_TOOLS,
        row(ASK, ANSWER, tools=[{"name": "zoom", "parameters": {}}]),
        "has tools",
    ),
    bad_line(Kind.TEMPLATE_DROPS_TOOLS, row(ASK, CALL, RESULT, ANSWER), "has tool calls", "calls"),
]
ENDLESS = (
    "{% for m in messages %}{% if m['content'] == 'x' * 99 %}{{ m['content'] * 10**10 }}{% endif %}"
    "{% endfor %}"
)
ENCODED.append(
    bad_line(
        Kind.TEMPLATE_ENDLESS,
        row(ASK, ("assistant", "x" * 99)),
        "takes more memory in the model's chat template",
        template=ENDLESS + CHATML,
    )
)
# What a turn says beyond a length is cut off, so that its end can not be found.
UNSTABLE = "{{ messages | length }}" + CHATML.replace("message['content']", "message.content[:11]")
ENCODED.append(
    bad_line(
        Kind.TEMPLATE_UNSTABLE,
        row(ASK, ANSWER, ASK, ANSWER),
        "the end of a turn (user)",
        template=UNSTABLE,
    )
)


def prompt(number: int) -> dict[str, Any]:
    """Return a good row of GRPO, one for each number."""
    return {"prompt": f"{number}?", "answer": f"{number}"}


def bad_prompt(kind: Kind, line: Any, words: str, name: str = "") -> Planted:
    """Return a file of prompts with one bad row."""
    return Planted(kind, among(line, others=prompt), words=words, name=name)


PROMPTS = [
    bad_prompt(Kind.MISSING_FIELD, {"answer": CANARY}, "has neither 'prompt' nor 'messages'"),
    bad_prompt(Kind.MISSPELT_FIELD, {"promt": CANARY, "answer": "1"}, "(found 'promt')"),
    bad_prompt(Kind.WRONG_TYPE, {"prompt": 7, "answer": CANARY}, "neither text nor a list"),
    bad_prompt(Kind.EMPTY_PROMPT, {"prompt": " \n", "answer": CANARY}, "an empty prompt"),
    bad_prompt(Kind.EMPTY_MESSAGES, {"prompt": [], "answer": CANARY}, "'prompt' is empty"),
    bad_prompt(
        Kind.AMBIGUOUS_FORMAT,
        {**row(ASK), "prompt": CANARY, "answer": "1"},
        "prompt as well as messages",
    ),
    bad_prompt(
        Kind.LAST_TURN_NOT_USER, row(ASK, ANSWER, answer="1"), "ends with an assistant turn"
    ),
    bad_prompt(Kind.UNKNOWN_ROLE, row(("usr", CANARY), answer="1"), "is 'user' meant?"),
    bad_prompt(
        Kind.RESULT_WITHOUT_CALL,
        row(ASK, CALL, {**RESULT, "tool_call_id": CANARY}, answer="1"),
        "turn 3 has the tool_call_id of no call",
    ),
    bad_prompt(Kind.MISSING_COLUMN, {"prompt": CANARY}, "no 'answer', which reward right reads"),
    bad_prompt(Kind.BAD_TOOLS, {**prompt(9), "tools": CANARY}, "'tools' is not JSON"),
    bad_prompt(
        Kind.PROMPT_TOO_LONG, {"prompt": "x" * 300, "answer": CANARY}, "more than the 192 that"
    ),
]
STRUCTURAL = [*FILES, *LINES, *FIELDS, *TURNS]
FATAL = [*STRUCTURAL, *ENCODED]

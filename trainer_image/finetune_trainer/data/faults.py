"""What can be wrong with data, in one table; and what was found: file, row, reason.

A reason never holds the row's text: it travels into the job's status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from finetune_contract.reasons import Reason
from finetune_contract.recipe import BadRows
from finetune_trainer.process.errors import Failure

SHOWN = 20


class Severity(StrEnum):
    """What a finding means for the job."""

    FILE = "File"  # ends the job, whatever data.onBadRow says
    ROW = "Row"  # ends the job, or with onBadRow Skip leaves the row out
    WARNING = "Warning"  # is counted; the row is trained on


class Kind(StrEnum):
    """A kind of finding."""

    # Files.
    EMPTY_FILE = "EmptyFile"
    BLANK_FILE = "BlankFile"
    NOT_UTF8_FILE = "NotUTF8File"
    BYTE_ORDER_MARK = "ByteOrderMark"
    COMPRESSED = "Compressed"
    BINARY_FORMAT = "BinaryFormat"
    JSON_ARRAY = "JSONArray"
    PRETTY_PRINTED = "PrettyPrinted"
    NO_GOOD_ROW = "NoGoodRow"
    # Lines.
    BLANK_LINE = "BlankLine"
    LINE_TOO_LONG = "LineTooLong"
    NOT_UTF8 = "NotUTF8"
    CONTROL_CHARACTER = "ControlCharacter"
    BAD_JSON = "BadJSON"
    NESTED_TOO_DEEPLY = "NestedTooDeeply"
    DUPLICATE_KEY = "DuplicateKey"
    NON_FINITE_NUMBER = "NonFiniteNumber"
    LONE_SURROGATE = "LoneSurrogate"
    NOT_AN_OBJECT = "NotAnObject"
    # Fields.
    MISSING_FIELD = "MissingField"
    MISSPELT_FIELD = "MisspeltField"
    WRONG_TYPE = "WrongType"
    MIXED_FORMATS = "MixedFormats"
    AMBIGUOUS_FORMAT = "AmbiguousFormat"
    EMPTY_COMPLETION = "EmptyCompletion"
    EMPTY_MESSAGES = "EmptyMessages"
    EMPTY_PROMPT = "EmptyPrompt"
    MISSING_COLUMN = "MissingColumn"
    NON_TEXT_CONTENT = "NonTextContent"
    # Turns.
    UNKNOWN_ROLE = "UnknownRole"
    SYSTEM_NOT_FIRST = "SystemNotFirst"
    WRONG_ROLE_ORDER = "WrongRoleOrder"
    NO_ASSISTANT_TURN = "NoAssistantTurn"
    LAST_TURN_NOT_ASSISTANT = "LastTurnNotAssistant"
    LAST_TURN_NOT_USER = "LastTurnNotUser"
    # Tools.
    BAD_TOOLS = "BadTools"
    BAD_TOOL_CALL = "BadToolCall"
    RESULT_WITHOUT_CALL = "ResultWithoutCall"
    CALL_WITHOUT_RESULT = "CallWithoutResult"
    # Rows beside each other.
    OVERLAP_WITH_EVAL = "OverlapWithEval"
    DUPLICATE_ROW = "DuplicateRow"
    # What only the model's tokenizer tells.
    TOO_LONG = "TooLong"
    PROMPT_TOO_LONG = "PromptTooLong"
    NO_SUPERVISED_TOKEN = "NoSupervisedToken"  # noqa: S105
    TEMPLATE_REFUSES = "TemplateRefuses"
    TEMPLATE_DROPS_TURN = "TemplateDropsTurn"
    TEMPLATE_DROPS_TOOLS = "TemplateDropsTools"
    TEMPLATE_UNSTABLE = "TemplateUnstable"
    REASONING_DROPPED = "ReasoningDropped"
    REASONING_NOT_OPENED = "ReasoningNotOpened"


@dataclass(frozen=True)
class About:
    """One line of the table."""

    severity: Severity
    meaning: str
    needs_model: bool = False  # found only with the model's tokenizer at hand


_FILE, _ROW, _WARNING = Severity.FILE, Severity.ROW, Severity.WARNING

TABLE: dict[Kind, About] = {
    Kind.EMPTY_FILE: About(_FILE, "The file has no bytes."),
    Kind.BLANK_FILE: About(_FILE, "The file holds white space only."),
    Kind.NOT_UTF8_FILE: About(_FILE, "The file is UTF-16 or UTF-32; it must be UTF-8."),
    Kind.BYTE_ORDER_MARK: About(_FILE, "The file begins with a UTF-8 byte-order mark."),
    Kind.COMPRESSED: About(_FILE, "The file is gzip, zip, bzip2, xz or zstd."),
    Kind.BINARY_FORMAT: About(_FILE, "The file is Parquet, Arrow or another binary format."),
    Kind.JSON_ARRAY: About(_FILE, "The file is one JSON array, not one object per line."),
    Kind.PRETTY_PRINTED: About(_FILE, "An object runs over several lines."),
    Kind.NO_GOOD_ROW: About(_FILE, "With onBadRow Skip: no row of the file is good."),
    Kind.BLANK_LINE: About(_ROW, "The line is blank. A newline after the last row is fine."),
    Kind.LINE_TOO_LONG: About(_ROW, "The line is longer than 16 MiB."),
    Kind.NOT_UTF8: About(_ROW, "A byte of the line is not UTF-8, such as Latin-1's umlauts."),
    Kind.CONTROL_CHARACTER: About(_ROW, "A raw control character, or NUL in any form."),
    Kind.BAD_JSON: About(_ROW, "The line is not JSON; the column is named."),
    Kind.NESTED_TOO_DEEPLY: About(_ROW, "Lists and objects are nested deeper than 100."),
    Kind.DUPLICATE_KEY: About(_ROW, "An object has a key twice; JSON does not say which counts."),
    Kind.NON_FINITE_NUMBER: About(_ROW, "NaN or Infinity, which JSON does not have."),
    Kind.LONE_SURROGATE: About(_ROW, r"Half of a surrogate pair, such as \ud83d alone."),
    Kind.NOT_AN_OBJECT: About(_ROW, "The line is JSON but not an object."),
    Kind.MISSING_FIELD: About(_ROW, "A field that the format needs is not there."),
    Kind.MISSPELT_FIELD: About(_ROW, "A field looks like a misspelling; both names are told."),
    Kind.WRONG_TYPE: About(_ROW, "A field holds another type than the format says."),
    Kind.MIXED_FORMATS: About(_ROW, "The row has another format than the file's first."),
    Kind.AMBIGUOUS_FORMAT: About(_ROW, "The row has messages as well as prompt or completion."),
    Kind.EMPTY_COMPLETION: About(_ROW, "A completion or assistant turn has nothing to learn."),
    Kind.EMPTY_MESSAGES: About(_ROW, "A list of messages is empty."),
    Kind.EMPTY_PROMPT: About(_ROW, "GRPO: a prompt of text is empty."),
    Kind.MISSING_COLUMN: About(_ROW, "GRPO: a column that a builtin reward reads is not there."),
    Kind.NON_TEXT_CONTENT: About(_ROW, "A turn's content is not text, such as a list of images."),
    Kind.UNKNOWN_ROLE: About(_ROW, "A role is none of system, user, assistant, tool."),
    Kind.SYSTEM_NOT_FIRST: About(_ROW, "A system turn stands after other turns."),
    Kind.WRONG_ROLE_ORDER: About(_ROW, "User and assistant do not take turns."),
    Kind.NO_ASSISTANT_TURN: About(_ROW, "No assistant turn, so nothing to learn."),
    Kind.LAST_TURN_NOT_ASSISTANT: About(_ROW, "The last turn is not the assistant's."),
    Kind.LAST_TURN_NOT_USER: About(_ROW, "GRPO: a prompt ends with the assistant's turn."),
    Kind.BAD_TOOLS: About(_ROW, "The row's list of tools is malformed."),
    Kind.BAD_TOOL_CALL: About(_ROW, "A tool call lacks its name or JSON arguments."),
    Kind.RESULT_WITHOUT_CALL: About(_ROW, "A tool turn answers no call."),
    Kind.CALL_WITHOUT_RESULT: About(_ROW, "The dialogue goes on before a call is answered."),
    Kind.OVERLAP_WITH_EVAL: About(_ROW, "A train row is in the eval data too."),
    Kind.DUPLICATE_ROW: About(_WARNING, "The row is there before, in this or another train file."),
    Kind.TOO_LONG: About(_ROW, "The row has more tokens than training.sequenceLength.", True),
    Kind.PROMPT_TOO_LONG: About(
        _ROW, "GRPO: a prompt has more tokens than sequenceLength - rollout.maxTokens.", True
    ),
    Kind.NO_SUPERVISED_TOKEN: About(_ROW, "No token of the row is learned.", True),
    Kind.TEMPLATE_REFUSES: About(_ROW, "The model's chat template raises an error.", True),
    Kind.TEMPLATE_DROPS_TURN: About(_ROW, "The chat template leaves out what a turn says.", True),
    Kind.TEMPLATE_DROPS_TOOLS: About(_ROW, "The chat template leaves out tools or calls.", True),
    Kind.TEMPLATE_UNSTABLE: About(
        _ROW, "The chat template renders the dialogue so that turns can not be told apart.", True
    ),
    Kind.REASONING_DROPPED: About(
        _WARNING, "The chat template leaves out reasoning, which is not learned then.", True
    ),
    Kind.REASONING_NOT_OPENED: About(
        _WARNING, "The chat template asks for reasoning, but renders the answer without.", True
    ),
}

# What is said of a row that is trained on all the same.
WARNINGS = {
    Kind.REASONING_DROPPED: "has reasoning that the chat template leaves out; it is not learned",
    Kind.REASONING_NOT_OPENED: "answers without the reasoning that the chat template will ask for",
}


@dataclass(frozen=True)
class Fault:
    """One finding: the 1-based line, or None for the whole file."""

    uri: str
    row: int | None
    kind: Kind
    reason: str

    @property
    def severity(self) -> Severity:
        """Return what it means for the job."""
        return TABLE[self.kind].severity

    def __str__(self) -> str:
        """Return it as one line."""
        where = self.uri if self.row is None else f"{self.uri} row {self.row}"
        return f"{where}: {self.reason}"


class RowError(Exception):
    """One row can not be trained on; the text is the reason."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class FileError(Exception):
    """A whole file can not be trained on; the text is the reason."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Findings:
    """Counts what is found; keeps the first 20 faults and the first 20 warnings."""

    def __init__(
        self,
        on_bad_row: BadRows = BadRows.FAIL,
        listener: Callable[[Fault], None] = lambda fault: None,
    ) -> None:
        self.counts: Counter[Kind] = Counter()
        self.shown: list[Fault] = []
        self.warnings: list[Fault] = []
        self._skips = on_bad_row is BadRows.SKIP
        self._listener = listener

    def add(self, uri: str, row: int | None, kind: Kind, reason: str) -> None:
        """Note a finding of a row (its 1-based line), or of the whole file where that is None."""
        fault = Fault(uri, row, kind, reason)
        self.counts[kind] += 1
        kept = self.warnings if fault.severity is Severity.WARNING else self.shown
        if len(kept) < SHOWN and not self.skips(fault):
            kept.append(fault)
        self._listener(fault)

    def warn(self, uri: str, row: int, kinds: Iterable[Kind]) -> None:
        """Note what is to be told of a row that is trained on."""
        for kind in kinds:
            self.add(uri, row, kind, WARNINGS[kind])

    def skips(self, fault: Fault) -> bool:
        """Tell whether the row is left out instead of ending the job."""
        return self._skips and fault.severity is Severity.ROW

    @property
    def skipped(self) -> int:
        """Return the number of rows left out."""
        return self._count(Severity.ROW) if self._skips else 0

    @property
    def fatal(self) -> int:
        """Return the number of faults that end the job."""
        return self._count(Severity.FILE) + (0 if self._skips else self._count(Severity.ROW))

    @property
    def warned(self) -> dict[str, int]:
        """Return how many warnings there are of each kind."""
        severity = Severity.WARNING
        return {str(k): n for k, n in self.counts.items() if TABLE[k].severity is severity}

    def raise_if_any(self) -> None:
        """Raise DataInvalid if a fault ends the job."""
        if not self.fatal:
            return
        more = self.fatal - len(self.shown)
        lines = [*map(str, self.shown), *([f"and {more} more"] if more else [])]
        raise Failure(Reason.DATA_INVALID, "\n".join(lines))

    def _count(self, severity: Severity) -> int:
        return sum(n for kind, n in self.counts.items() if TABLE[kind].severity is severity)

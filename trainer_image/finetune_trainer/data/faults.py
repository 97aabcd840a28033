"""What can be wrong with data, in one table; and what was found: file, row, reason.

A reason never holds the row's text: it travels into the job's status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from finetune_contract.foreign import printable
from finetune_contract.reasons import Reason
from finetune_contract.recipe import BadRows
from finetune_trainer.process.errors import Failure

SHOWN = 20
LONGEST_KEY, MOST_KEYS, OTHER_KEYS = 64, 100, "others"


class Severity(StrEnum):
    """What a finding means for the job."""

    FILE = "File"  # ends the job, whatever data.onBadRow says
    ROW = "Row"  # ends the job, or with onBadRow Skip leaves the row out
    WARNING = "Warning"  # is counted; the row is trained on


_FILE, _WARNING = Severity.FILE, Severity.WARNING


class Kind(StrEnum):
    """A kind of finding: its name, what that means, and what it means for the job."""

    meaning: str
    severity: Severity

    def __new__(cls, name: str, meaning: str = "", severity: Severity = Severity.ROW) -> Self:
        """Return the kind, which is equal to its name."""
        kind = str.__new__(cls, name)
        kind._value_, kind.meaning, kind.severity = name, meaning, severity
        return kind

    # Files.
    EMPTY_FILE = "EmptyFile", "The file has no bytes.", _FILE
    BLANK_FILE = "BlankFile", "The file holds no row.", _FILE
    NOT_UTF8_FILE = "NotUTF8File", "The file is UTF-16 or UTF-32; it must be UTF-8.", _FILE
    BYTE_ORDER_MARK = "ByteOrderMark", "The file begins with a UTF-8 byte-order mark.", _WARNING
    COMPRESSED = "Compressed", "The file is zip, bzip2 or xz, or packed twice.", _FILE
    DAMAGED_FILE = "DamagedFile", "The file is cut short or damaged.", _FILE
    UNPACKS_TOO_FAR = "UnpacksTooFar", "The file unpacks to 200 times its size.", _FILE
    BINARY_FORMAT = "BinaryFormat", "The file is Arrow, Avro or another binary format.", _FILE
    BAD_JSON_ARRAY = "BadJSONArray", "A JSON array goes wrong; the row is named.", _FILE
    BAD_CSV = "BadCSV", "The quotes or the header of a CSV or TSV file go wrong.", _FILE
    DUPLICATE_COLUMN = "DuplicateColumn", "Two columns have the same name.", _FILE
    PRETTY_PRINTED = "PrettyPrinted", "An object runs over several lines.", _FILE
    NO_GOOD_ROW = "NoGoodRow", "With onBadRow Skip: no row of the file is good.", _FILE
    # Lines.
    BLANK_LINE = "BlankLine", "The line is blank, and passed over.", _WARNING
    LINE_TOO_LONG = "LineTooLong", "The line is longer than 16 MiB."
    NOT_UTF8 = "NotUTF8", "A byte of the line is not UTF-8, such as Latin-1's umlauts."
    CONTROL_CHARACTER = "ControlCharacter", "A raw control character, or NUL in any form."
    BAD_JSON = "BadJSON", "The line is not JSON; the column is named."
    NESTED_TOO_DEEPLY = "NestedTooDeeply", "Lists and objects are nested deeper than 100."
    DUPLICATE_KEY = "DuplicateKey", "An object has a key twice; JSON does not say which counts."
    NON_FINITE_NUMBER = "NonFiniteNumber", "NaN or Infinity, which JSON does not have."
    LONE_SURROGATE = "LoneSurrogate", r"Half of a surrogate pair, such as \ud83d alone."
    WRONG_CELLS = "WrongCells", "A record of CSV or TSV has other cells than the header."
    UNSUPPORTED_VALUE = "UnsupportedValue", "A column holds bytes or durations, which JSON lacks."
    NOT_AN_OBJECT = "NotAnObject", "The line is JSON but not an object."
    # Fields.
    MISSING_FIELD = "MissingField", "A field that the format needs is not there."
    MISSPELT_FIELD = "MisspeltField", "A field looks like a misspelling; both names are told."
    WRONG_TYPE = "WrongType", "A field holds another type than the format says."
    MIXED_FORMATS = "MixedFormats", "The row has another format than the file's first."
    AMBIGUOUS_FORMAT = "AmbiguousFormat", "The row can be read in more than one way."
    EMPTY_COMPLETION = "EmptyCompletion", "A completion or assistant turn has nothing to learn."
    EMPTY_MESSAGES = "EmptyMessages", "A list of messages is empty."
    EMPTY_PROMPT = "EmptyPrompt", "GRPO: a prompt of text is empty."
    MISSING_COLUMN = "MissingColumn", "GRPO: a column that a builtin reward reads is not there."
    NON_TEXT_CONTENT = "NonTextContent", "A turn's content has a part that is no text."
    FOREIGN_FIELD = "ForeignField", "A field of another tool says what can not be obeyed."
    PREFERENCE_DATA = "PreferenceData", "The row says which answer is better, not what to learn."
    # Turns.
    UNKNOWN_ROLE = "UnknownRole", "A role is no text, or looks like a misspelling of one."
    NO_ASSISTANT_TURN = "NoAssistantTurn", "No assistant turn is to be learned."
    LAST_TURN_NOT_USER = "LastTurnNotUser", "GRPO: a prompt ends with the assistant's turn."
    LAST_TURN_NOT_ASSISTANT = (
        "LastTurnNotAssistant",
        "The last turn is not the assistant's; nothing is learned from it.",
        _WARNING,
    )
    # Tools.
    BAD_TOOLS = "BadTools", "The row's list of tools is malformed."
    BAD_TOOL_CALL = "BadToolCall", "A tool call lacks its name or JSON arguments."
    RESULT_WITHOUT_CALL = "ResultWithoutCall", "A tool turn has the tool_call_id of no call."
    # Rows beside each other.
    OVERLAP_WITH_EVAL = "OverlapWithEval", "A train row is in the eval data too."
    DUPLICATE_ROW = (
        "DuplicateRow",
        "The row is there before, in this or another train file.",
        _WARNING,
    )
    # What only the model's tokenizer tells.
    TOO_LONG = "TooLong", "The row has more tokens than training.sequenceLength."
    PROMPT_TOO_LONG = (
        "PromptTooLong",
        "GRPO: a prompt has more tokens than sequenceLength - rollout.maxTokens.",
    )
    NO_SUPERVISED_TOKEN = "NoSupervisedToken", "No token of the row is learned."
    END_TOKEN_WRITTEN = "EndTokenWritten", "A completion ends with the token that ends a turn."
    TURN_OPENED = "TurnOpened", "A completion has a token that opens a turn."
    CONTROL_TOKEN = (
        "ControlToken",
        "A text has a special token of the model's tokenizer, which is read as one.",
        _WARNING,
    )
    TEMPLATE_REFUSES = "TemplateRefuses", "The model's chat template raises an error."
    TEMPLATE_ENDLESS = (
        "TemplateEndless",
        "The chat template takes more than 20 s or 1 GiB for the row.",
        _FILE,
    )
    TEMPLATE_DROPS_TURN = "TemplateDropsTurn", "The chat template leaves out what a turn says."
    TEMPLATE_DROPS_TOOLS = "TemplateDropsTools", "The chat template leaves out tools or calls."
    TEMPLATE_UNSTABLE = (
        "TemplateUnstable",
        "The chat template renders the dialogue so that turns can not be told apart.",
    )
    LAST_REASONING_DROPPED = (
        "LastReasoningDropped",
        "The chat template leaves out the reasoning of the last turn that is learned.",
    )
    REASONING_DROPPED = (
        "ReasoningDropped",
        "The chat template leaves out reasoning of earlier turns, which is not learned then.",
        _WARNING,
    )
    REASONING_NOT_OPENED = (
        "ReasoningNotOpened",
        "The chat template asks for reasoning, but renders the answer without.",
        _WARNING,
    )


# What is said of a row that is trained on all the same.
WARNINGS = {
    Kind.LAST_TURN_NOT_ASSISTANT: "ends with a turn that is not the assistant's",
    Kind.CONTROL_TOKEN: "has a special token of the model's tokenizer in a text",
    Kind.REASONING_DROPPED: "has reasoning that the chat template leaves out; it is not learned",
    Kind.REASONING_NOT_OPENED: "answers without the reasoning that the chat template will ask for",
}


def in_words(ignored: Mapping[str, int]) -> str:
    """Return ignored keys with their numbers of rows, most first: `id 1,000, source 20`."""
    ordered = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{key} {count:,}" for key, count in ordered)


@dataclass(frozen=True)
class Fault:
    """One finding: the 1-based line, or None for the whole file."""

    uri: str
    row: int | None
    kind: Kind
    reason: str

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
        self.ignored: Counter[str] = Counter()
        self._skips = on_bad_row is BadRows.SKIP
        self._listener = listener

    def add(self, uri: str, row: int | None, kind: Kind, reason: str) -> None:
        """Note a finding of a row (its 1-based line), or of the whole file where that is None."""
        fault = Fault(uri, row, kind, reason)
        self.counts[kind] += 1
        kept = self.warnings if fault.kind.severity is Severity.WARNING else self.shown
        if len(kept) < SHOWN and not self.skips(fault):
            kept.append(fault)
        self._listener(fault)

    def ignore(self, keys: Iterable[str]) -> None:
        """Count the keys of a row that mean nothing; of more than 100 the others as one."""
        for key in keys:
            name = printable(key, LONGEST_KEY)
            known = name in self.ignored or len(self.ignored) < MOST_KEYS
            self.ignored[name if known else OTHER_KEYS] += 1

    def warn(self, uri: str, row: int, kinds: Iterable[Kind]) -> None:
        """Note what is to be told of a row that is trained on."""
        for kind in kinds:
            self.add(uri, row, kind, WARNINGS[kind])

    def skips(self, fault: Fault) -> bool:
        """Tell whether the row is left out instead of ending the job."""
        return self._skips and fault.kind.severity is Severity.ROW

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
        return {str(k): n for k, n in self.counts.items() if k.severity is severity}

    def raise_if_any(self) -> None:
        """Raise DataInvalid if a fault ends the job."""
        if not self.fatal:
            return
        more = self.fatal - len(self.shown)
        lines = [*map(str, self.shown), *([f"and {more} more"] if more else [])]
        raise Failure(Reason.DATA_INVALID, "\n".join(lines))

    def _count(self, severity: Severity) -> int:
        return sum(n for kind, n in self.counts.items() if kind.severity is severity)

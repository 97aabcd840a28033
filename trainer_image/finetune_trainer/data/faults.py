"""What is wrong with the data: file, row, reason. Never the row's text."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_contract.reasons import Reason
from finetune_trainer.errors import Failure

SHOWN = 20


class RowError(Exception):
    """One row can not be trained on; the text is the reason."""


@dataclass
class Faults:
    """Collects faults; the first 20 are told, the rest are counted."""

    shown: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, uri: str, line: int | None, reason: str) -> None:
        """Note a fault of a row (its 1-based line), or of the whole file where that is None."""
        self.count += 1
        if len(self.shown) < SHOWN:
            where = uri if line is None else f"{uri} row {line}"
            self.shown.append(f"{where}: {reason}")

    def raise_if_any(self) -> None:
        """Raise DataInvalid if a fault was noted."""
        if not self.count:
            return
        more = self.count - len(self.shown)
        lines = [*self.shown, *([f"and {more} more"] if more else [])]
        raise Failure(Reason.DATA_INVALID, "\n".join(lines))

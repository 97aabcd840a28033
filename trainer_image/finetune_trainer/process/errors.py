"""Failures that the trainer understands: a reason of the contract's table and words for the user.

A message names the field or file and never holds a data row, a token or a key: it travels into the
job's status.
"""

from __future__ import annotations

from typing import Any

from finetune_contract.reasons import Reason

PANIC = "pyo3_runtime.PanicException"  # no Exception, and no class that can be imported


class Failure(Exception):
    """The run ends with `reason`. `rank` is set where another process failed first."""

    def __init__(
        self, reason: Reason, message: str, *, step: int | None = None, rank: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.step = step
        self.rank = rank

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep reason, step and rank when the failure is sent to the other ranks."""
        return Failure, (self.reason, self.message), {"step": self.step, "rank": self.rank}


class Conflict(Exception):
    """A conditional write lost: the object is not what the writer last saw."""


def is_panic(error: BaseException) -> bool:
    """Tell whether a library in Rust met what it takes for impossible, as what it reads may be."""
    return f"{type(error).__module__}.{type(error).__name__}" == PANIC

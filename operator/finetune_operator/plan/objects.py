"""What is to be written, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.job.names import Object


@dataclass(frozen=True)
class Objects:
    """`prepared` are written side by side; `started` come after them, one by one and once."""

    prepared: tuple[Object, ...]
    started: tuple[Object, ...]

"""What keeps a job from going on: Waiting goes on by itself, Stalled needs the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from finetune_contract.reasons import Reason


class Waiting(Exception):
    """Nothing can be done until something else happens; look again after `after` seconds."""

    def __init__(self, reason: Reason, message: str, after: float) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.after = after


class Stalled(Exception):
    """The job can not go on as it is written."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@contextmanager
def checked() -> Iterator[None]:
    """Turn pydantic's ValidationError of what the trainer is told into Stalled, with its fields."""
    try:
        yield
    except ValidationError as error:
        wrong = [
            f"{'.'.join([error.title, *(to_camel(str(part)) for part in e['loc'])])}: {e['msg']}"
            for e in error.errors()
        ]
        text = f"the trainer would refuse {'; '.join(wrong)}"
        raise Stalled(Reason.INVALID_SPEC, text) from error

"""What keeps a job from going on: Waiting goes on by itself, Stalled needs the user."""

from __future__ import annotations

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

"""What of a reward ends a run. A single completion that fails is an `Item`, never one of these.

A message names the reward and the remedy: it travels into the job's status.
"""

from __future__ import annotations

from typing import ClassVar

from finetune_contract.reasons import Reason


class RewardError(Exception):
    """The run ends with `reason`, a row of the contract's table."""

    reason: ClassVar[Reason]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RewardInvalid(RewardError):
    """A reward can not be used as it is written: its settings, its code, or a missing column."""

    reason = Reason.REWARD_INVALID


class RewardFailed(RewardError):
    """A reward failed on as many completions in a row as its failAfter allows."""

    reason = Reason.REWARD_FAILED


class RewardUnavailable(RewardError):
    """A reward's service or runner was away for too long, or its code took too long to load."""

    reason = Reason.REWARD_UNAVAILABLE


class RewardChanged(RewardError):
    """A reward's code is another than the run began with."""

    reason = Reason.INPUT_CHANGED


class SandboxUnavailable(RewardError):
    """The kernel can not confine the process that would run a reward's code."""

    reason = Reason.SANDBOX_UNAVAILABLE


def error_of(reason: Reason, message: str) -> RewardError:
    """Return what a runner told of, as the exception of its kind."""
    kinds = (RewardInvalid, RewardFailed, RewardUnavailable, RewardChanged, SandboxUnavailable)
    return next((kind for kind in kinds if kind.reason is reason), RewardUnavailable)(message)

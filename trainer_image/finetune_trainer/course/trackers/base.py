"""What all trackers have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from finetune_contract.reasons import TABLE, Reason, Retry

SECRET_FIELD = "spec.tracking.credentialsSecretRef"  # noqa: S105 - the field's name


@dataclass(frozen=True)
class Point:
    """One value of a curve; `time` in seconds since the epoch."""

    key: str
    value: float
    step: int
    time: float


@dataclass(frozen=True)
class Run:
    """What a tracker is told of a run. `uid` is the job's: the same over all attempts."""

    project: str
    name: str
    uid: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    run_id: str | None  # the tracker's, where an earlier attempt left it


class Unavailable(Exception):
    """The tracker can not be reached or refuses us; trying later may help."""


class Refused(Exception):
    """The tracker is there and does not want these points; trying again is pointless."""


class Tracker(Protocol):
    """One run at one tracker. Its methods may block; they raise Unavailable and Refused."""

    run_id: str | None

    def open(self) -> None:
        """Go on with the run, or create it; sets `run_id`."""

    def reached(self, key: str) -> int:
        """Return the last step the tracker has of a curve from earlier attempts; -1 if none."""

    def log(self, points: Sequence[Point]) -> None:
        """Add points, in the order of their steps."""

    def close(self, reason: Reason) -> None:
        """Set the run's final status."""


def was_stopped(reason: Reason) -> bool:
    """Tell whether the attempt was ended from outside, so that the next one goes on."""
    return TABLE[reason].retry is Retry.INFRASTRUCTURE


def public_uri(uri: str) -> str:
    """Return a URI without user, password, query and fragment: they may hold secrets."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()

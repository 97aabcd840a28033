"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime

from finetune_contract import foreign


def rfc3339(time: datetime) -> str:
    """Return the text of a time: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(text: object) -> datetime | None:
    """Return the time of a text; None without one, or if it is none that can be meant."""
    return foreign.time(text)

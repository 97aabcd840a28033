"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(time: datetime) -> str:
    """Return the text of a time: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(text: str | None) -> datetime | None:
    """Return the time of a text; None without one."""
    return datetime.fromisoformat(text) if text else None

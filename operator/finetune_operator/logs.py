"""Log lines, as text or as one JSON object each; those of a pass name the job it is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORMATS = ("text", "json")
_job: ContextVar[str] = ContextVar("job", default="")


@contextmanager
def about(namespace: str, name: str) -> Iterator[None]:
    """Let every line from within, and from tasks that begin there, name this job."""
    token = _job.set(f"{namespace}/{name}")
    try:
        yield
    finally:
        _job.reset(token)


def configure(level: str, form: str) -> None:
    """Write all logs of this process to stderr, from a level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line per watch event
    # A line per try of a request of the watches; what matters of it, the lists tell.
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)


def formatter(form: str) -> logging.Formatter:
    """Return what writes lines in one of the FORMATS."""
    return _Json() if form == "json" else _Text()


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(job)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the job before the message."""
        job = _job_of(record)
        record.job = f"{job}: " if job else ""
        return super().format(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return one line; only what is there has a field."""
        time = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "job": _job_of(record),
            "message": record.getMessage(),
            "traceback": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in fields.items() if value})


def _job_of(record: logging.LogRecord) -> str:
    """Return the job by NAMESPACE/NAME: that of the pass, or the one that Kopf names."""
    named = getattr(record, "k8s_ref", None) or {}
    if named.get("kind") == "FineTuneJob":
        return f"{named.get('namespace')}/{named.get('name')}"
    return _job.get()

"""Container logs in the CRI format: `<RFC 3339 time> <stdout|stderr> <P|F> <text>` per line."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

CHUNK = 16 * 1024
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class LogOptions:
    """The query of a log request; None means no limit."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None


async def record(stream: asyncio.StreamReader, name: str, path: Path) -> None:
    """Append everything from `stream` to the log at `path`; lines over 16 KiB become parts."""
    rest = b""
    with path.open("ab", buffering=0) as log:
        while chunk := await stream.read(CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
            head = b"%s %s " % (stamp, name.encode())
            entries = [head + b"F " + line + b"\n" for line in whole]
            if len(rest) >= CHUNK:
                entries.append(head + b"P " + rest + b"\n")
                rest = b""
            log.write(b"".join(entries))
        if rest:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
            log.write(b"%s %s P %s\n" % (stamp, name.encode(), rest))


def tail(path: Path, lines: int, size: int) -> str:
    """The last `lines` lines of a log without their stamps, cut to the last `size` bytes."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        last = deque(log, maxlen=lines)
    return b"".join(_text(line) for line in last)[-size:].decode(errors="replace")


async def read(path: Path, options: LogOptions, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield the log as `kubectl logs` shows it; with `follow`, until `ended` is set."""
    left = options.limit_bytes
    with path.open("rb") as log:
        whole, partial = _lines(log.read())
        recent = [line for line in whole if _recent(line, options.since)]
        chosen = recent[_first(recent, options.tail_lines) :]
        while True:
            shown = b"".join(_shown(line, options.timestamps) for line in chosen)[:left]
            if shown:
                yield shown
            left = None if left is None else left - len(shown)
            if left == 0 or not options.follow:
                return
            # asked before reading: what was written before the end is read after it
            over = ended.is_set()
            chosen, partial = _lines(partial + log.read())
            if not chosen:
                if over:
                    return
                await asyncio.sleep(POLL_SECONDS)


def since_seconds(seconds: int) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def _first(lines: list[bytes], tail_lines: int | None) -> int:
    return 0 if tail_lines is None else max(0, len(lines) - tail_lines)


def _lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines with their newlines, and the beginning of one that is still being written."""
    *whole, partial = data.split(b"\n")
    return [line + b"\n" for line in whole], partial


def _text(line: bytes) -> bytes:
    _stamp, _stream, tag, text = line.split(b" ", 3)
    return text.removesuffix(b"\n") if tag == b"P" else text


def _shown(line: bytes, timestamps: bool) -> bytes:
    stamp = line.partition(b" ")[0] + b" " if timestamps else b""
    return stamp + _text(line)


def _recent(line: bytes, since: datetime | None) -> bool:
    if since is None:
        return True
    stamp = line.partition(b" ")[0].decode()
    # the stamp has nanoseconds, `fromisoformat` reads six digits
    return datetime.fromisoformat(stamp[:26] + "+00:00") >= since

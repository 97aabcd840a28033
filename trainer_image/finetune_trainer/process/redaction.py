"""What leaves a process for a log or a Result passes here: of secrets it holds three stars.

Failures of this project never quote a key. Libraries do: in tracebacks, URLs and headers. So what
is known to be secret is taken out of everything, and what looks like a signed URL or a token too.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import IO, TextIO
from urllib.parse import quote, quote_plus

from finetune_contract.layout import CredentialKey, Credentials
from finetune_contract.result import Result

STARS = "***"
SHORTEST = 6  # of a value that is taken out wherever it stands
SHORTEST_LINE = 16  # of one with several lines, such as a key file, which text may quote by line
OPEN = {CredentialKey.ENDPOINT_URL, CredentialKey.REGION, CredentialKey.CA_CERTIFICATE}
ESCAPED = re.compile("%[0-9A-F]{2}")  # in a URL
LONGEST_LINE = 64 * 1024
LAST_WORDS_SECONDS = 5.0  # for what is in a pipe when the process has ended
LOOK_AGAIN_SECONDS = 1.0  # the kubelet renews Secrets under a running pod
SHAPES = (
    re.compile(r"(?<=://)[^/\s@\"'<>]*(?=@)"),  # user and password of a URL
    re.compile(r"(?i)(?<=authorization: )[^\r\n\"']+"),
    re.compile(r"(?<=\b[Bb]earer )(?=\S*[\d._-])[\w.~+/-]{8,}=*"),
    re.compile(r"(?<=\b[Bb]asic )(?=\S*[\d=+/])[\w+/]{8,}=*"),
    re.compile(  # of signed URLs: S3's, CloudFront's, Azure's, Google's
        r"(?i)(?<=[?&;])(x-(?:amz|goog)-(?:signature|credential|security-token)"
        r"|signature|sig|policy|key-pair-id|awsaccesskeyid|token|access_token)=[^&\s\"'<>\\]+"
    ),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bhf_[A-Za-z0-9]{16,}\b"),
)


class Redaction:
    """Takes secrets out of text. `watch` names the directories that hold them as files."""

    def __init__(self, look_again_seconds: float = LOOK_AGAIN_SECONDS) -> None:
        self._look_again_seconds = look_again_seconds
        self._directories: tuple[Path, ...] = ()
        self._known: set[str] = set()  # those that were renewed too
        self._pattern: re.Pattern[str] | None = None
        self._looked = 0.0
        self._lock = Lock()

    def watch(self, credentials: Credentials) -> None:
        """Take out from now on what these directories hold."""
        every = credentials.model_dump()
        of_rewards = (every.pop("rewards") or {}).values()
        self._directories = tuple(Path(d) for d in (*every.values(), *of_rewards) if d)
        self._looked = 0.0

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        known = self._current()
        if known is not None:
            text = known.sub(STARS, text)
        for shape in SHAPES:
            text = shape.sub(STARS, text)
        return text

    def result(self, result: Result) -> Result:
        """Return a Result whose words hold no secret."""
        frames = tuple(map(self.text, result.frames))
        return result.model_copy(update={"message": self.text(result.message), "frames": frames})

    @contextmanager
    def passing_on(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Write what a process writes to its pipes to this one's streams, without secrets."""
        assert process.stdout is not None
        assert process.stderr is not None
        streams = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        threads = [
            Thread(target=self._copy, args=(pipe, target), name="redaction", daemon=True)
            for pipe, target in streams
        ]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join(LAST_WORDS_SECONDS)

    def _copy(self, pipe: IO[bytes], target: TextIO) -> None:
        """Copy line by line until the pipe's last writer is gone."""
        while line := pipe.readline(LONGEST_LINE):
            text = self.text(line.decode(errors="surrogateescape"))
            target.buffer.write(text.encode(errors="surrogateescape"))
            target.flush()

    def _current(self) -> re.Pattern[str] | None:
        with self._lock:
            if self._directories and time.monotonic() >= self._looked + self._look_again_seconds:
                self._looked = time.monotonic()
                found = set(_values(self._directories)) - self._known
                if found:
                    self._known |= found
                    longest_first = sorted(self._known, key=len, reverse=True)
                    self._pattern = re.compile("|".join(map(re.escape, longest_first)))
            return self._pattern


class RedactedStream:
    """A text stream to log to."""

    def __init__(self, stream: TextIO, redaction: Redaction) -> None:
        self._stream = stream
        self._redaction = redaction

    def write(self, text: str) -> int:
        """Write the text without secrets."""
        return self._stream.write(self._redaction.text(text))

    def flush(self) -> None:
        """Pass on what was written."""
        self._stream.flush()


def _values(directories: Iterable[Path]) -> Iterable[str]:
    """Yield each secret as it may stand in a text."""
    for directory in directories:
        for file in directory.glob("*"):
            if file.name in OPEN or not file.is_file():
                continue
            value = file.read_bytes().decode(errors="replace").strip()
            if len(value) >= SHORTEST:
                yield from _spellings(value)
            lines = [line.strip() for line in value.splitlines()]
            yield from (line for line in lines if len(line) >= SHORTEST_LINE)


def _spellings(value: str) -> set[str]:
    """Return a secret as it is, and as JSON, Python, HTML, a URL and the Secret itself write it."""
    quoted = {quote(value), quote(value, safe=""), quote_plus(value)}
    lower = {ESCAPED.sub(lambda escaped: escaped[0].lower(), text) for text in quoted}
    texts = {value, json.dumps(value)[1:-1], repr(value)[1:-1], html.escape(value)}
    coded = {b64encode(f"{value}{end}".encode()).decode() for end in ("", "\n")}
    return texts | quoted | lower | coded

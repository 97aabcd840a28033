"""One JSON array -> the text of its elements, read piece by piece."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO

from finetune_trainer.data.faults import FileError, Kind
from finetune_trainer.data.lines import LONGEST_LINE

PIECE = 2**16
LONGEST_NUMBER = 8192
_SPACE = re.compile(r"[ \t\r\n]*")
_ENDS = frozenset(",] \t\r\n")
# Finds where an element ends; what JSON does not have is for the element's own row to tell.
_SCANNER = json.JSONDecoder(strict=False)


def elements(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the array's elements, counted from 1; raise FileError where no more can be told."""
    text = _Text(file)
    text.take("[")
    number = 0
    while text.next() != "]":
        if number:
            text.take(",")
        number += 1
        yield number, text.element(number).encode()
    text.take("]")
    if text.next():
        raise FileError(Kind.BAD_JSON_ARRAY, f"goes on behind the array's end, after row {number}")


class _Text:
    """A file's text, of which only what is being looked at is held."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._held = ""
        self._at = 0
        self._row = 0
        self._whole = False  # all of the file was read

    def next(self) -> str:
        """Return the next character that is no white space; "" at the end."""
        while True:
            space = _SPACE.match(self._held, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more(PIECE):
                return ""

    def take(self, expected: str) -> None:
        """Pass over a character, which must be there."""
        if self.next() != expected:
            raise self._bad(f"'{expected}' is missing")
        self._at += 1

    def element(self, number: int) -> str:
        """Pass over the value that begins here and return its text."""
        self._row = number
        self.next()
        while True:
            try:
                _, end = _SCANNER.raw_decode(self._held, self._at)
                # What seems to end here may be a number that goes on.
                if self._held[end : end + 1] in _ENDS or len(self._held) > end + LONGEST_NUMBER:
                    break
                if not self._more(PIECE):
                    break
            except json.JSONDecodeError as error:
                held = len(self._held) - self._at
                if held > LONGEST_LINE:
                    raise self._bad("it is no JSON, or longer than 16 MiB") from error
                if not self._more(max(held, PIECE)):
                    raise self._bad(error.msg) from error
            except RecursionError as error:
                raise self._bad("it is nested too deeply") from error
            except ValueError as error:  # Python's limit on digits
                raise self._bad("it holds a number of thousands of digits") from error
        found = self._held[self._at : end]
        self._at = end
        return found

    def _more(self, count: int) -> bool:
        """Read on; tell whether there was more."""
        if self._whole:
            return False
        piece = self._file.read(count)
        self._whole = not piece
        try:
            text = self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise self._bad("a byte is not UTF-8; save the file as UTF-8") from error
        self._held = self._held[self._at :] + text
        self._at = 0
        return not self._whole

    def _bad(self, why: str) -> FileError:
        return FileError(
            Kind.BAD_JSON_ARRAY, f"is not one JSON array: at or after row {self._row}, {why}"
        )

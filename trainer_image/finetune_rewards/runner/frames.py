"""Messages over a stream: a JSON header and a body that whoever passes it on need not read.

Two big-endian 32-bit lengths, the header, the body. Lengths are bounded before anything is read,
and what a header may be before anything is made of it: either end may be code of a user's.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from typing import Any

from finetune_contract.foreign import Unreadable, parse

PREFIX = struct.Struct(">II")
MOST_HEADER = 4096
MOST_BODY = 2**30

Header = dict[str, Any]


class BadFrame(Exception):
    """What arrived is not a message, or is larger than the reader takes."""


def encode(header: Header, body: bytes = b"") -> bytes:
    """Return a message's bytes; raise BadFrame where it is larger than any reader takes."""
    head = json.dumps(header).encode()
    if len(head) > MOST_HEADER or len(body) > MOST_BODY:
        raise BadFrame(f"a message of {len(head) + len(body)} bytes is too large")
    return PREFIX.pack(len(head), len(body)) + head + body


async def read(stream: asyncio.StreamReader, most_body: int = MOST_BODY) -> tuple[Header, bytes]:
    """Read a message; raise BadFrame, or asyncio.IncompleteReadError at the stream's end."""
    lengths = _lengths(await stream.readexactly(PREFIX.size), most_body)
    head = await stream.readexactly(lengths[0])
    return _header(head), await stream.readexactly(lengths[1])


def read_from(descriptor: int) -> tuple[Header, bytes]:
    """Read a message from a pipe; raise EOFError at its end."""
    head, body = _lengths(_exactly(descriptor, PREFIX.size), MOST_BODY)
    return _header(_exactly(descriptor, head)), _exactly(descriptor, body)


def write_to(descriptor: int, header: Header, body: bytes = b"") -> None:
    """Write a message into a pipe."""
    left = memoryview(encode(header, body))
    while left:
        left = left[os.write(descriptor, left) :]


def _lengths(prefix: bytes, most_body: int) -> tuple[int, int]:
    head, body = PREFIX.unpack(prefix)
    if head > MOST_HEADER or body > most_body:
        raise BadFrame(f"a message of {head + body} bytes is too large")
    return head, body


def _header(head: bytes) -> Header:
    try:
        header = parse(head)
    except Unreadable as error:
        raise BadFrame(f"a message's header {error}") from error
    if not isinstance(header, dict):
        raise BadFrame("a message's header is not an object")
    return header


def _exactly(descriptor: int, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(descriptor, count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)

"""Container logs: written in CRI form, read as kubectl asks."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kube_emulator.node.containers.logs import CHUNK, LogOptions, read, record, since_seconds, tail

ENDED = asyncio.Event()
ENDED.set()


async def write(path: Path, data: bytes) -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    await record(stream, "stdout", path)


async def shown(path: Path, ended: asyncio.Event = ENDED, **options: object) -> str:
    chosen = LogOptions(**options)  # type: ignore[arg-type]
    return b"".join([chunk async for chunk in read(path, chosen, ended)]).decode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "0.log"


@pytest.mark.parametrize(
    "text",
    ["", "one\n", "one\ntwo\n", "no newline", "a\n\nb", "ä\u2028\n", "x" * (3 * CHUNK) + "\nend\n"],
)
async def test_a_log_gives_back_what_was_written(log: Path, text: str) -> None:
    await write(log, text.encode())
    assert await shown(log) == text


async def test_lines_are_stamped(log: Path) -> None:
    before = datetime.now(UTC)
    await write(log, b"hello\n")
    line = await shown(log, timestamps=True)
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})000Z hello\n", line)
    assert match is not None
    stamp = datetime.fromisoformat(match[1] + "+00:00")
    assert before <= stamp <= datetime.now(UTC)
    assert log.read_text() == line.replace("Z hello", "Z stdout F hello")


async def test_tail_lines_and_limit(log: Path) -> None:
    await write(log, b"one\ntwo\nthree\n")
    assert await shown(log, tail_lines=2) == "two\nthree\n"
    assert await shown(log, tail_lines=0) == ""
    assert await shown(log, limit_bytes=5) == "one\nt"


async def test_since_leaves_older_lines_out(log: Path) -> None:
    log.write_text(
        "2020-01-01T00:00:00.000000000Z stdout F old\n"
        f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z stdout F new\n"
    )
    assert await shown(log, since=since_seconds(60)) == "new\n"


async def test_follow_shows_what_comes_until_the_end(log: Path) -> None:
    await write(log, b"first\n")
    ended = asyncio.Event()
    following = asyncio.create_task(shown(log, ended, follow=True))
    await asyncio.sleep(0)
    await write(log, b"second\n")
    ended.set()
    assert await following == "first\nsecond\n"


async def test_follow_waits_for_the_rest_of_a_line(log: Path) -> None:
    stamp = "2020-01-01T00:00:00.000000000Z stdout F "
    log.write_text("")
    ended = asyncio.Event()
    stream = read(log, LogOptions(follow=True), ended)
    with log.open("a") as file:
        file.write(stamp + "ha")
        file.flush()
        pending = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.15)
        assert not pending.done()
        file.write("lf\n")
    assert await pending == b"half\n"


async def test_tail_of_a_log(log: Path) -> None:
    await write(log, b"one\ntwo\nthree\n")
    assert tail(log, lines=2, size=100) == "two\nthree\n"
    assert tail(log, lines=80, size=4) == "ree\n"
    assert tail(log.with_name("none"), lines=1, size=1) == ""

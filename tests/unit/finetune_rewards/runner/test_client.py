"""What the trainer's end of the runner says, hears and waits for, beside a runner of the test's."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from finetune_contract.artifact import RewardIdentity
from finetune_contract.reasons import Reason
from finetune_rewards.runner import frames
from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.runner.protocol import VERSION, Problem, unpack_samples
from finetune_rewards.runner.replies import ANSWERS, DESCRIBED, Described
from finetune_rewards.scores.errors import RewardChanged, RewardUnavailable
from finetune_rewards.scores.samples import Answer
from support.rewards.runners import samples

Says = Callable[[frames.Header, bytes], Awaitable[bytes]]
NOTHING = frames.encode({}, ANSWERS.dump_json({"mine": Answer([], 0.0)}))


@asynccontextmanager
async def says(socket: Path, answer: Says) -> AsyncIterator[list[bytes]]:
    """Serve what a function says of each request; yield what clients send after the answer."""
    after: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await answer(*await frames.read(reader)))
        await writer.drain()
        after.append(await asyncio.wait_for(reader.read(), 30))
        writer.close()

    async with await asyncio.start_unix_server(serve, socket):
        yield after


async def test_a_runner_that_dies_late_in_a_batch_is_waited_for(tmp_path: Path) -> None:
    """The batch took longer than a runner may be away."""
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await frames.read(reader)
        if asked == 1:
            await asyncio.sleep(0.4)
        else:
            writer.write(NOTHING)
        writer.close()

    socket = tmp_path / "rewards.sock"
    async with await asyncio.start_unix_server(answer, socket):
        client = RunnerClient(socket, away_seconds=0.3)
        assert await client.score(samples()) == {"mine": Answer([], 0.0)}
    assert asked == 2


async def test_a_call_is_one_connection_that_says_its_version_and_is_closed(tmp_path: Path) -> None:
    heard: list[tuple[frames.Header, bytes]] = []

    async def answer(header: frames.Header, body: bytes) -> bytes:
        heard.append((header, body))
        return NOTHING

    batch = samples("a", "b")
    async with says(tmp_path / "r.sock", answer) as after:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", ResourceWarning)
            await RunnerClient(tmp_path / "r.sock").score(batch)
            gc.collect()
        assert [str(one.message) for one in warned] == []  # closed, not forgotten
        async with asyncio.timeout(30):
            while not after:  # noqa: ASYNC110 - the server is not told of the test's end
                await asyncio.sleep(0.01)
    [(header, body)] = heard
    assert header == {"version": VERSION, "ask": "score", "count": 2, "revisions": {}}
    assert unpack_samples(body) == batch
    assert after == [b""]


async def test_only_what_has_a_source_has_an_identity_and_is_asked_for(tmp_path: Path) -> None:
    described = [Described("pattern"), Described("mine", "sha256:1")]
    heard: list[frames.Header] = []

    async def answer(header: frames.Header, body: bytes) -> bytes:
        heard.append(header)
        return frames.encode({}, DESCRIBED.dump_json(described)) if not body else NOTHING

    async with says(tmp_path / "r.sock", answer):
        client = RunnerClient(tmp_path / "r.sock")
        assert await client.describe() == (RewardIdentity(name="mine", revision="sha256:1"),)
        await client.score(samples("a"))
    assert heard[1]["revisions"] == {"mine": "sha256:1"}


@pytest.mark.parametrize(
    ("header", "kind", "told"),
    [
        ({}, RewardUnavailable, "gave an answer of another form; only code that runs unconfined"),
        ({"error": "speaks another version"}, RewardUnavailable, "^the reward runner: speaks an"),
        ({"changed": ["a", 2]}, RewardChanged, "this attempt began with: reward a, 2; the next"),
    ],
)
async def test_what_a_runner_refuses_ends_the_attempt(
    header: frames.Header, kind: type[Exception], told: str, tmp_path: Path
) -> None:
    async def answer(*_: object) -> bytes:
        return frames.encode(header)

    async with says(tmp_path / "r.sock", answer):
        with pytest.raises(kind, match=told):
            await RunnerClient(tmp_path / "r.sock").score(samples("a"))


async def test_what_is_no_message_ends_the_attempt(tmp_path: Path) -> None:
    async def answer(*_: object) -> bytes:
        return frames.PREFIX.pack(4000, 0) + b"[" * 4000

    async with says(tmp_path / "r.sock", answer):
        with pytest.raises(RewardUnavailable, match="gave no answer: a message's header nests"):
            await RunnerClient(tmp_path / "r.sock").rewards()


async def test_a_problem_of_no_reward_ends_the_attempt(tmp_path: Path) -> None:
    described = [Described("mine", None, Problem(Reason.SUCCEEDED, "no"))]

    async def answer(*_: object) -> bytes:
        return frames.encode({}, DESCRIBED.dump_json(described))

    async with says(tmp_path / "r.sock", answer):
        with pytest.raises(RewardUnavailable, match=r"^no$"):
            await RunnerClient(tmp_path / "r.sock").describe()

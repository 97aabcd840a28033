"""The trainer's end of the isolated runner.

Each call is a connection of its own. A runner that goes away is waited for: its container is
started again, or its launcher starts another. One that left why it never began to serve is not.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from finetune_contract.artifact import RewardIdentity
from finetune_rewards import frames
from finetune_rewards.errors import RewardUnavailable, error_of
from finetune_rewards.protocol import (
    VERSION,
    Described,
    pack_samples,
    unpack_answers,
    unpack_described,
)
from finetune_rewards.samples import Answer, Samples
from finetune_rewards.start_failure import start_failure

# Both together stay below the 30 minutes that other ranks wait in a collective.
AWAY_SECONDS = 300.0
ANSWER_SECONDS = 1200.0
PAUSE_SECONDS = 0.2


class RunnerClient:
    """Asks the runner at a socket."""

    def __init__(
        self,
        socket_path: Path,
        away_seconds: float = AWAY_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._path = socket_path
        self._away = away_seconds
        self._answer = answer_seconds
        self._answered = False  # ever

    async def rewards(self) -> list[Described]:
        """Return what the runner holds, with what is wrong with it; raise RewardUnavailable."""
        return unpack_described(await self._ask({"ask": "describe"}, b""))

    async def describe(self) -> tuple[RewardIdentity, ...]:
        """Return the digests of users' sources.

        Raises:
            RewardInvalid, SandboxUnavailable, RewardUnavailable: naming the first reward that can
                not be used.
            RewardUnavailable: if the runner does not answer.
        """
        rewards = await self.rewards()
        for reward in rewards:
            if reward.problem is not None:
                raise error_of(reward.problem.reason, reward.problem.message)
        return tuple(
            RewardIdentity(name=reward.name, revision=reward.revision)
            for reward in rewards
            if reward.revision is not None
        )

    async def score(self, samples: Samples) -> dict[str, Answer]:
        """Return the answer of every isolated reward, by name; raise RewardUnavailable."""
        body = pack_samples(samples)
        return unpack_answers(await self._ask({"ask": "score", "count": len(samples)}, body))

    async def _ask(self, header: frames.Header, body: bytes) -> bytes:
        deadline = time.monotonic() + self._away
        while True:
            try:
                answer, found = await asyncio.wait_for(
                    self._exchange({"version": VERSION, **header}, body), self._answer
                )
            except TimeoutError:
                said = f"gave no answer within {self._answer:g} s"
                raise RewardUnavailable(f"the reward runner at {self._path} {said}") from None
            except (OSError, asyncio.IncompleteReadError) as error:
                failure = start_failure(self._path)
                if failure is not None and not self._answered:
                    raise error_of(failure.reason, failure.message) from error
                if time.monotonic() > deadline:
                    said = f"has been away for {self._away:g} s"
                    said += f": {failure.message}" if failure is not None else ""
                    raise RewardUnavailable(f"the reward runner at {self._path} {said}") from error
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self._answered = True
                if "error" in answer:
                    raise RewardUnavailable(f"the reward runner: {answer['error']}")
                return found

    async def _exchange(self, header: frames.Header, body: bytes) -> tuple[frames.Header, bytes]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(frames.encode(header, body))
            await writer.drain()
            return await frames.read(reader)
        finally:
            writer.close()

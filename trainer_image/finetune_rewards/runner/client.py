"""The trainer's end of the isolated runner.

Each call is a connection of its own. A runner that goes away is waited for: its container is
started again, or its launcher starts another. One that left why it never began to serve is not.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from finetune_contract.artifact import RewardIdentity
from finetune_rewards.runner import frames
from finetune_rewards.runner.protocol import VERSION, pack_samples
from finetune_rewards.runner.replies import ANSWERS, DESCRIBED, Described
from finetune_rewards.runner.start_failure import start_failure
from finetune_rewards.scores.errors import RewardChanged, RewardUnavailable, error_of
from finetune_rewards.scores.samples import Answer, Samples

# Both together, twice, stay far below what other ranks wait for this one.
AWAY_SECONDS = 300.0
ANSWER_SECONDS = 1200.0
PAUSE_SECONDS = 0.2
_MEMORY = "if its container ends again and again, it may need more memory (python.memory)"
_CHANGED = "the runner was started again and read other code than this attempt began with: reward"
_REMEDY = (
    "the next attempt goes on where the ConfigMap holds what it did before; create the job anew to "
    "train on other code"
)


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
        self._revisions: dict[str, str] = {}  # of the sources, as they were described

    async def rewards(self) -> list[Described]:
        """Return what the runner holds, with what is wrong with it; raise RewardUnavailable."""
        return DESCRIBED.validate_json(await self._ask({"ask": "describe"}, b""))

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
                raise error_of(*reward.problem)
        self._revisions = {
            reward.name: reward.revision for reward in rewards if reward.revision is not None
        }
        return tuple(
            RewardIdentity(name=name, revision=revision)
            for name, revision in self._revisions.items()
        )

    async def score(self, samples: Samples) -> dict[str, Answer]:
        """Return the answer of every isolated reward, by name.

        Raises:
            RewardChanged: if a source is another than when it was described.
            RewardUnavailable: if the runner does not answer.
        """
        asked = {"ask": "score", "count": len(samples), "revisions": self._revisions}
        return ANSWERS.validate_json(await self._ask(asked, pack_samples(samples)))

    async def _ask(self, header: frames.Header, body: bytes) -> bytes:
        away_since: float | None = None
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
                    raise error_of(*failure) from error
                away_since = away_since or time.monotonic()
                if time.monotonic() > away_since + self._away:
                    said = f"has been away for {self._away:g} s: "
                    said += failure.message if failure is not None else _MEMORY
                    raise RewardUnavailable(f"the reward runner at {self._path} {said}") from error
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self._answered = True
                if changed := answer.get("changed"):
                    raise RewardChanged(f"{_CHANGED} {', '.join(changed)}; {_REMEDY}")
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

"""The trainer's end of the isolated runner.

Each call is a connection of its own. A runner that goes away is waited for: its container is
started again, or its launcher starts another. One that left why it never began to serve is not.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

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
_UNCONFINED = "only code that runs unconfined (python.allowUnconfined) could say that in its place"
_CHANGED = "the runner was started again and read other code than this attempt began with: reward"
_REMEDY = (
    "the next attempt goes on where the ConfigMap holds what it did before; create the job anew to "
    "train on other code"
)


T = TypeVar("T")


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
        return self._read(DESCRIBED, await self._ask({"ask": "describe"}, b""))

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
        return self._read(ANSWERS, await self._ask(asked, pack_samples(samples)))

    def _read(self, kind: TypeAdapter[T], answer: bytes) -> T:
        try:
            return kind.validate_json(answer)
        except ValidationError as error:
            raise self._no_answer("an answer of another form") from error

    def _no_answer(self, what: str) -> RewardUnavailable:
        return RewardUnavailable(f"the reward runner at {self._path} gave {what}; {_UNCONFINED}")

    async def _ask(self, header: frames.Header, body: bytes) -> bytes:
        away_since: float | None = None
        message = frames.encode({"version": VERSION, **header}, body)
        while True:
            try:
                answer, found = await asyncio.wait_for(self._exchange(message), self._answer)
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
            except frames.BadFrame as error:
                raise self._no_answer(f"no answer: {error}") from error
            else:
                self._answered = True
                match answer:
                    case {"changed": [*changed]}:
                        names = ", ".join(map(str, changed))
                        raise RewardChanged(f"{_CHANGED} {names}; {_REMEDY}")
                    case {"error": said}:
                        raise RewardUnavailable(f"the reward runner: {said}")
                return found

    async def _exchange(self, message: bytes) -> tuple[frames.Header, bytes]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(message)
            await writer.drain()
            return await frames.read(reader)
        finally:
            writer.close()

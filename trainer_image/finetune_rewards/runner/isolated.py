"""The isolated runner: one confined worker per user function, one for all builtins.

Sources are read once, so what is scored with is what `describe` names, whatever becomes of the
files. Nothing that a worker does ends the runner.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_contract.model import sha256_digest
from finetune_contract.reasons import Reason
from finetune_contract.rewards import PythonReward, Reward
from finetune_rewards.runner.protocol import Problem
from finetune_rewards.runner.replies import Described
from finetune_rewards.runner.station import Assignment, Station
from finetune_rewards.runner.worker_process import COMMAND
from finetune_rewards.scores.samples import Answer

# A pattern or a formula can take for ever on one completion; others are scored all the same.
BUILTIN_SECONDS = 10.0
BUILTIN_BATCH_SECONDS = 120.0
BUILTIN_MEMORY_BYTES = 2 * 2**30
BUILTINS = "builtins"


class Runner:
    """The isolated rewards of a recipe; others are passed over."""

    def __init__(
        self,
        rewards: Sequence[Reward],
        sources: Mapping[str, Path],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Read the sources, by the reward's name; `command` starts a worker."""
        self._rewards = [reward for reward in rewards if reward.isolated]
        self._stations: dict[str, Station] = {}
        self._revisions: dict[str, str] = {}
        self._problems: dict[str, Problem] = {}
        for reward in self._rewards:
            if reward.python is not None:
                self._take(reward.name, reward.python, sources, command)
        builtins = [reward for reward in self._rewards if reward.python is None]
        station = Station(builtins_assignment(builtins), command)
        self._stations.update(dict.fromkeys((reward.name for reward in builtins), station))

    async def start(self) -> None:
        """Start every worker, so that the first batch does not wait."""
        names = list(self._stations)
        problems = await asyncio.gather(*(self._stations[name].start() for name in names))
        found = zip(names, problems, strict=True)
        self._problems.update({name: problem for name, problem in found if problem})

    async def stop(self) -> None:
        """End every worker."""
        await asyncio.gather(*(station.stop() for station in set(self._stations.values())))

    def describe(self) -> list[Described]:
        """Return what is scored with, and why what can not be used can not."""
        return [
            Described(
                reward.name, self._revisions.get(reward.name), self._problems.get(reward.name)
            )
            for reward in self._rewards
        ]

    def changed(self, expected: Mapping[str, str]) -> list[str]:
        """Return the rewards whose source has another digest than expected, or can not be read."""
        return [name for name, digest in expected.items() if self._revisions.get(name) != digest]

    async def score(self, body: bytes, count: int) -> dict[str, Answer]:
        """Return every isolated reward's answer for `count` samples, packed in `body`."""
        answers = await asyncio.gather(
            *(self._answer(reward.name, body, count) for reward in self._rewards)
        )
        return {reward.name: answer for reward, answer in zip(self._rewards, answers, strict=True)}

    async def _answer(self, name: str, body: bytes, count: int) -> Answer:
        if name not in self._stations:
            return Answer.failed(count, self._problems[name].message)
        return await self._stations[name].score(name, body, count)

    def _take(
        self, name: str, reward: PythonReward, sources: Mapping[str, Path], command: Sequence[str]
    ) -> None:
        try:
            source = sources[name].read_bytes()
        except (KeyError, OSError) as error:
            said = f"reward {name}: its source {reward.key} can not be read"
            if isinstance(error, OSError):
                said += f": {error.strerror}"
            self._problems[name] = Problem(Reason.REWARD_INVALID, said)
            return
        self._revisions[name] = sha256_digest(source)
        self._stations[name] = Station(_python(name, reward, source), command)


def _python(name: str, reward: PythonReward, source: bytes) -> Assignment:
    load = {
        "load": "python",
        "name": name,
        "file": reward.key,
        "function": reward.function,
        "memoryBytes": reward.memory_bytes,
        "allowUnconfined": reward.allow_unconfined,
    }
    return Assignment(name, load, source, reward.timeout_seconds)


def builtins_assignment(
    rewards: Sequence[Reward],
    seconds: float = BUILTIN_SECONDS,
    batch_seconds: float = BUILTIN_BATCH_SECONDS,
) -> Assignment:
    """Return what the worker of builtin rewards loads, and how long it may take."""
    load = {"load": BUILTINS, "memoryBytes": BUILTIN_MEMORY_BYTES}
    described = [reward.model_dump(mode="json", exclude_none=True) for reward in rewards]
    return Assignment(BUILTINS, load, json.dumps(described).encode(), seconds, batch_seconds)

"""One operator on a World, pass by pass, for tests of what a pass writes."""

from typing import Any

from finetune_operator.cluster.api import ApiError
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.sync import Synchroniser
from finetune_operator.settings import Settings
from support.operator.jobs import bot_job
from support.operator.model.api_server import ModelApi, reconciler_on
from support.operator.model.world import World, child_kinds

Json = Any
KEY = Key("team", "bot")
SETTINGS = Settings(trainer_image="trainer:1")


class Bench:
    """An operator on a World in which `refusals` says how creating a kind is refused."""

    def __init__(self, world: World | None = None, **spec: Json) -> None:
        self.world = world or World()
        self.refusals: dict[str, ApiError] = {}
        self.created: list[str] = []
        self.ended: list[str] = []
        if world is None:
            self.world.add(bot_job(**spec))
        self.api = ModelApi(self.world, self._check)
        self._start()

    def _start(self) -> None:
        self.cache = Cache()
        self.reconciler = reconciler_on(
            self.api, self.cache, SETTINGS, on_attempt_end=self.ended.append
        )

    def _check(self, body: Json) -> None:
        self.created.append(body["kind"])
        if refusal := self.refusals.get(body["kind"]):
            raise refusal

    async def relist(self) -> None:
        kinds = child_kinds(self.world.backend)
        await Synchroniser(self.api, self.cache, kinds, (), lambda key: None).list_all(None)

    def forget(self) -> None:
        """Start anew, with a cache that shows the job and nothing of what was made of it."""
        self._start()
        self.cache.put(self.world.job())

    async def do_pass(self) -> float | None:
        await self.relist()
        return await self.reconciler.reconcile(KEY)

    def status(self) -> Json:
        return self.world.job()["status"]

    def told(self, kind: str) -> tuple[str, str, str]:
        found = next(c for c in self.status()["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]

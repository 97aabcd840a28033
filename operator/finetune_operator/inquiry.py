"""A decision on what the watches have shown; where that is not enough, the API server is asked too.

It is asked what is not there, what Events tell of, and whether a container writes to its log.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from finetune_api.job import FineTuneJob
from finetune_operator.cluster.api import Api, ApiError, Unreachable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.confirm import confirm
from finetune_operator.job.backend import Backend
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Decision
from finetune_operator.judge.standstill import QUIET_SECONDS
from finetune_operator.lookout import Lookout
from finetune_operator.observe.observe import newest, observe
from finetune_operator.observe.observed import Observed, Sign
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inquiry:
    """Asks what a decision says that it rests on."""

    api: Api
    cache: Cache
    settings: Settings
    backend: Backend
    lookout: Lookout

    async def decide(
        self, job: FineTuneJob, trial: str | None, now: datetime
    ) -> tuple[Observed, Decision]:
        """Return what is observed, and what is decided on that; `trial` as for `judge.decide`."""

        def decided(observed: Observed) -> Decision:
            return decide(job, observed, now, self.settings, self.backend, trial)

        observed = self._observe(job)
        decision = decided(observed)
        if decision.confirm:
            await confirm(self.api, self.cache, self.backend, job)
            observed = self._observe(job)
            decision = decided(observed)
        if decision.look:
            signs = await self._signs(job, decision.look)
            warned = {uid: s.message for uid, s in signs.items() if s and s.warning and s.message}
            others = {uid: sign for uid, sign in signs.items() if uid not in warned}
            observed = replace(observed, warnings=warned, signs=others, looked=True)
            decision = decided(observed)
        if decision.listen:
            observed = replace(observed, quiet=await self._is_quiet(job, decision.listen))
            decision = decided(observed)
        return observed, decision

    def _observe(self, job: FineTuneJob) -> Observed:
        key = Key(job.namespace, job.name)
        seen = observe(job, self.cache.children(key), self.cache.departed(key), self.backend)
        return self.lookout.look(job, seen)

    async def _signs(self, job: FineTuneJob, uids: tuple[str, ...]) -> dict[str, Sign | None]:
        found: dict[str, Sign | None] = {}
        for uid in uids:
            events = await self.api.events_of(job.namespace, uid)
            found[uid] = newest(e for e in events if not self.backend.repeats(e))
        return found

    async def _is_quiet(self, job: FineTuneJob, pod: str) -> bool:
        """Tell whether a trainer writes no log; one that can not be read says nothing of that."""
        where = (job.namespace, pod, self.backend.container, QUIET_SECONDS)
        try:
            return not await self.api.has_logged(*where)
        except (ApiError, Unreachable) as error:
            log.warning("whether %s still lives can not be told: %s", pod, error)
            return False

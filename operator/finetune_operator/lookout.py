"""Since when each job's Lease has told nothing new, as this process saw it by its own clock.

What a pod writes may bear any time, so nothing is compared with that. An operator that starts, or
is elected, begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from finetune_api.job import FineTuneJob
from finetune_api.status import AttemptState
from finetune_operator.cluster.cache import Key
from finetune_operator.observe.observed import Observed, Standing


@dataclass(frozen=True)
class _Seen:
    """A Lease as it was last seen: `came` is when it was first seen so, `stood` when its count of
    moves was."""

    attempt: tuple[str, int]
    renewal: str | None
    moves: int | None
    stood: float
    came: float


class Lookout:
    """Watches the Leases of attempts that run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Key, _Seen] = {}

    def look(self, job: FineTuneJob, observed: Observed) -> Observed:
        """Return what is observed, with how long the newest attempt has stood, if it runs."""
        key = Key(job.namespace, job.name)
        last = job.status.attempts[-1] if job.status and job.status.attempts else None
        if last is None or last.state is not AttemptState.RUNNING:
            self.forget(key)
            return observed
        now, before, number = self._clock(), self._seen.get(key), last.number
        reports = (r.progress.moves for r in observed.reports if r.attempt == number)
        seen = _Seen(
            (job.uid, number), observed.renewals.get(number), next(reports, None), now, now
        )
        if before is not None and before.attempt == seen.attempt:
            if before.renewal == seen.renewal:
                seen = before
            elif seen.moves is not None and before.moves == seen.moves:
                seen = replace(seen, stood=before.stood)
        self._seen[key] = seen
        return replace(observed, standing=Standing(seen.came - seen.stood, now - seen.came))

    def forget(self, key: Key) -> None:
        """Drop what was seen of a job."""
        self._seen.pop(key, None)

"""One job, one pass: parse -> observe -> decide -> record -> apply -> status.

Idempotent and level-triggered: everything is read anew, nothing is remembered between passes but
since when a run stands still, and a pass over a converged job writes nothing.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from finetune_api.job import KIND, FineTuneJob
from finetune_api.status import FineTuneJobStatus
from finetune_api.validation import known_part
from finetune_contract.reasons import Reason
from finetune_operator.apply import Applier
from finetune_operator.cluster.api import Api, ApiError, Unreachable
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.patch import same
from finetune_operator.cluster.queue import RetryLater
from finetune_operator.events import Recorder, Transition, transitions
from finetune_operator.inquiry import Inquiry
from finetune_operator.job.backend import Backend
from finetune_operator.job.errors import Stalled, Waiting
from finetune_operator.job.names import Object, attempt_name, content_digest
from finetune_operator.job.parse import Parser
from finetune_operator.job.policy import refusals
from finetune_operator.job.stored import finished, stored_status
from finetune_operator.job.workers import image
from finetune_operator.judge.decision import Decision
from finetune_operator.judge.fallback import fall_back, hindered
from finetune_operator.judge.status import status_of
from finetune_operator.judge.wording import bounded
from finetune_operator.lookout import Lookout
from finetune_operator.observe.observed import Observed
from finetune_operator.plan.attempt import attempt_objects, given, upkeep
from finetune_operator.plan.objects import Objects
from finetune_operator.plan.reward_check import reward_check
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

# So many passes in a row have to fail before status says so; an API server that is away a few
# seconds costs no job a write.
_FAILURES = 3
_REFUSALS = 7


@dataclass
class Reconciler:
    """Knows the way from a job's body to what must be written, and writes it."""

    api: Api
    cache: Cache
    settings: Settings
    backend: Backend
    clock: Callable[[], datetime]
    recorder: Recorder
    on_attempt_end: Callable[[str], None]
    lookout: Lookout = field(default_factory=Lookout)
    _parser: Parser = field(init=False)
    _inquiry: Inquiry = field(init=False)
    _failures: dict[Key, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._parser = Parser(self._note_unknown)
        self._inquiry = Inquiry(self.api, self.cache, self.settings, self.backend, self.lookout)

    async def reconcile(self, key: Key) -> float | None:
        """Do one pass; return after how many seconds to look again, None for not of itself.

        Raises RetryLater if the API server failed or another writer was faster.
        """
        body = self.cache.job(key)
        if body is None:
            self.forget(key)
            return None
        if "deletionTimestamp" in body["metadata"]:
            return None  # children go by their ownerReferences
        try:
            after = await self._pass(body)
        except (ApiError, Unreachable) as error:
            if isinstance(error, ApiError) and error.code in (404, 409):
                await self._reread(key, body)
            log.warning("%s", error)
            await self._failed(key, error, _REFUSALS)
            raise RetryLater from error
        except Exception as error:
            await self._failed(key, error, _FAILURES)
            raise
        self._failures.pop(key, None)
        return after

    async def _failed(self, key: Key, error: Exception, most: int) -> None:
        """Count a pass that failed; from the `most`th in a row on, do what holds nevertheless."""
        self._failures[key] = self._failures.get(key, 0) + 1
        body = self.cache.job(key)
        if body is None or self._failures[key] < most:
            return
        why = Waiting(Reason.OPERATOR_ERROR, f"passes over the job fail: {_words(error)}", 0)
        try:
            await self._fall_back(body, why, self.clock())
        except (ApiError, Unreachable) as refusal:  # as long as it is away, for every job
            log.warning("what holds nevertheless could not be done: %s", refusal)
        except Exception:  # what failed goes on to be told; it is tried again after its back-off
            log.exception("what holds nevertheless could not be done")

    async def _fall_back(self, body: Object, why: Stalled | Waiting, now: datetime) -> float | None:
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        old = stored_status(body, now)
        children = self.cache.children(key)
        fallback = fall_back(body, old, children, why, now, self.backend.workload)
        try:
            await self._record(body, old, fallback.status, now)
        finally:  # a status that is refused holds up no end
            await Applier(self.api, self.cache).delete(key, fallback.delete)
        return fallback.after.total_seconds() if fallback.after else None

    def forget(self, key: Key) -> None:
        """Drop what is known of a job that is gone."""
        self._parser.forget(key.namespace, key.name)
        self._failures.pop(key, None)
        self.lookout.forget(key)

    def _note_unknown(self, body: Object, paths: list[str]) -> None:
        text = _without(paths)
        log.warning("%s", text)
        self.recorder.note(body, Transition(True, "UnknownFields", text), self.clock())

    async def _pass(self, body: Object) -> float | None:
        now = self.clock()
        try:
            job = self._parse(body, now)
            trial = self._trial(job)
            digest = content_digest(trial.started[-1]) if trial else None
            observed, decision = await self._inquiry.decide(job, digest, now)
            objects = self._objects(job, decision, trial)
        except Stalled as stalled:
            return await self._fall_back(body, stalled, now)
        known = job.status or FineTuneJobStatus()
        same_check = decision.reward_check in (None, known.reward_check)
        if decision.attempts != tuple(known.attempts or ()) or not same_check:
            # Written ahead: an attempt stands in status before anything of it exists, and its end
            # stands there before anything of it is deleted.
            ahead = self._status(job, observed, decision, now)
            body, job = await self._write(body, job, ahead, now)
        changed = False
        try:
            changed = await Applier(self.api, self.cache).apply(job, decision, objects)
            decision = self._recorded(job, decision)
        except (Waiting, Stalled) as why:
            decision = hindered(decision, why, now, self.settings)
        status = self._status(job, observed, decision, now)
        await self._write(body, job, status, now)
        if changed or (finished(status) and not finished(known)):
            return 0.0  # what a job that is over leaves goes by the time of its end
        return decision.after.total_seconds() if decision.after else None

    def _status(
        self, job: FineTuneJob, observed: Observed, decision: Decision, now: datetime
    ) -> FineTuneJobStatus:
        """Return the status, which also says what of the spec this operator does not know."""
        if unknown := self._parser.unknown(job.namespace, job.name):
            text = "; ".join(filter(None, (decision.verdict.message, _without(unknown))))
            decision = replace(decision, verdict=replace(decision.verdict, message=text))
        return status_of(job, observed, decision, now, self.settings)

    def _parse(self, body: Object, now: datetime) -> FineTuneJob:
        """Return the job; one that has begun or finished is judged by no policy of later."""
        job = self._parser.parse(body, now)
        over = job.status is not None and finished(job.status)
        if not (over or _has_begun(job)) and (wrong := refusals(job, self.settings.policy)):
            raise Stalled(Reason.INVALID_SPEC, "; ".join(wrong))
        return job

    def _trial(self, job: FineTuneJob) -> Objects | None:
        """Return what tries the job's rewards; None without any to try, or once it has begun."""
        if _has_begun(job):
            return None
        settings = self.settings
        return reward_check(job, image(job, settings.trainer_image), settings.trainer_pull_secrets)

    def _objects(
        self, job: FineTuneJob, decision: Decision, trial: Objects | None
    ) -> Objects | None:
        run, secrets = decision.run, self.settings.trainer_pull_secrets
        if decision.run_check:
            return trial
        if run is None:
            return None
        if run.workload_uid is not None and self._has_all(
            job, given(job, run.number, self.backend)
        ):
            return upkeep(job, run.number, self.backend, secrets)
        return attempt_objects(job, run, self.backend, self.settings.heartbeat_seconds, secrets)

    def _has_all(self, job: FineTuneJob, children: Iterable[tuple[str, str]]) -> bool:
        key = Key(job.namespace, job.name)
        return all(self.cache.has(key, kind, name) for kind, name in children)

    def _recorded(self, job: FineTuneJob, decision: Decision) -> Decision:
        """Return the decision with the uid that the attempt's workload got: by it, and by nothing
        else, its pods are known."""
        run, key = decision.run, Key(job.namespace, job.name)
        if run is None or run.workload_uid is not None:
            return decision
        made = self.cache.find(key, self.backend.workload, attempt_name(job.name, run.number))
        if made is None:
            return decision
        known = run.model_copy(update={"workload_uid": made["metadata"]["uid"]})
        return replace(decision, run=known, attempts=(*decision.attempts[:-1], known))

    async def _write(
        self, body: Object, job: FineTuneJob, status: FineTuneJobStatus, now: datetime
    ) -> tuple[Object, FineTuneJob]:
        """Write the status, if it is another than stored; return body and job as they are then."""
        written = await self._record(body, job.status or FineTuneJobStatus(), status, now)
        known = {"metadata": written["metadata"], "status": status}
        return written, job.model_copy(update=known)

    async def _record(
        self, body: Object, old: FineTuneJobStatus, new: FineTuneJobStatus, now: datetime
    ) -> Object:
        """Write a status over that of the body; `old` is what of the stored one could be read."""
        told, stored = _json(new), body.get("status") or {}
        if told != stored:  # what a newer operator added to it stays
            stored = known_part({"status": stored})[0]["status"]
        if same(told, stored):
            return body
        answer = await self.api.patch_status({**body, "status": stored}, told)
        self.cache.put(answer)
        for transition in transitions(old, new):
            log.info("%s: %s", transition.reason, transition.message)
            self.recorder.note(body, transition, now)
        known = {a.number for a in old.attempts or () if a.end_time}
        for attempt in new.attempts or ():
            if attempt.end_time and attempt.number not in known:
                self.on_attempt_end(attempt.reason or "")
        return answer

    async def _reread(self, key: Key, body: Object) -> None:
        """Learn the job's newest state from the server; the cache was behind."""
        try:
            newest = await self.api.get(KIND, key.namespace, key.name)
        except (ApiError, Unreachable):
            return
        if newest is None:
            self.cache.remove(body)
        else:
            self.cache.put(newest)


def _json(status: FineTuneJobStatus) -> Object:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _without(paths: list[str]) -> str:
    return bounded(f"a newer CRD knows {', '.join(paths)}; this operator goes on without")


def _words(error: Exception) -> str:
    """Return what failed: the API server's words, else the kind of the error and where it arose."""
    if isinstance(error, ApiError | Unreachable):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "finetune_" in f.filename] or frames
    where = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}{where}"


def _has_begun(job: FineTuneJob) -> bool:
    """Tell whether its first attempt was recorded."""
    return bool(job.status and job.status.attempts)

"""Bring a decision about: delete what must go, then make what is missing.

Creation is by POST, so that neither a stranger's object nor the children of a deleted job are taken
over. What exists already is adopted only if it is this job's. Where it is not as planned it is put
right by a server-side apply, or, where a kind can not be changed, made anew. Conflicts and refusals
become Waiting or Stalled.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from finetune_api.job import FineTuneJob
from finetune_contract.reasons import Reason
from finetune_operator.cluster.api import Api, ApiError
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.job.errors import Stalled, Waiting
from finetune_operator.job.kept import kept
from finetune_operator.job.names import Object, controller, owner
from finetune_operator.job.resources import POD
from finetune_operator.judge.decision import Decision
from finetune_operator.observe.observed import Child
from finetune_operator.plan.objects import Objects, is_as_planned

# All others can not be changed, or others write what stands in them, or have made pods of it.
_CHANGED = {"ServiceAccount", "NetworkPolicy", "Role"}
_NO_RIGHT = re.compile(r'\bUser "[^"]*" cannot ')  # an authorizer's words, not a webhook's
# An admission webhook answers with a code and words of its own, and so does an admission policy.
_DENIED = re.compile(r"^admission webhook .+ denied the request|olicy ['\"].+ denied request: ")
# It passes, unlike that of a quota which asks for limits: that one says "failed quota".
_QUOTA = re.compile(r"is forbidden: (exceeded quota|status unknown for quota)")
_SOON = 5.0
_LATER = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Applier:
    """Writes children; each answer goes into the cache, so that the next pass knows of it."""

    api: Api
    cache: Cache

    async def apply(self, job: FineTuneJob, decision: Decision, objects: Objects | None) -> bool:
        """Return whether anything was made, or is gone: what the cache is told of here no watch
        tells. Raises Waiting, Stalled, ApiError or Unreachable."""
        key = Key(job.namespace, job.name)
        gone = await self.delete(key, decision.delete)
        if objects is None:
            return gone
        begun = decision.run is not None and decision.run.workload_uid is not None
        made = await self._prepare_all(job, key, objects.prepared, begun)
        made += await self._prepare_all(job, key, objects.bound, begun)
        # What makes the pods is looked at until its uid is recorded; others may add to it then. A
        # pod says more than its plan from its first moment on.
        looked_at = decision.run is not None and not begun
        started = await self._start(job, key, objects.started, looked_at)
        lacks = self._lacks(job, key, objects.given)
        return gone or any(made) or started or lacks

    async def delete(self, key: Key, children: Iterable[Child]) -> bool:
        """Delete a job's children; return whether any is gone. Raises ApiError or Unreachable."""
        return any(await _all(self._delete(key, child) for child in children))

    async def _delete(self, key: Key, child: Child) -> bool:
        # The operator's own pods can commit nothing, so a node that does not answer holds none up.
        # Those of an attempt may save a checkpoint, and are there until they have gone.
        at_once = child.kind == POD and child.attempt is None
        await self.api.delete(child.kind, key.namespace, child.name, child.uid, at_once=at_once)
        if child.kind == POD and not at_once:
            return False
        known = self.cache.find(key, child.kind, child.name)
        if known is None or known["metadata"]["uid"] != child.uid:
            return False
        if known["metadata"].get("finalizers"):
            return False
        self.cache.bury(known)
        return True

    async def _prepare_all(
        self, job: FineTuneJob, key: Key, bodies: Iterable[Object], begun: bool
    ) -> list[bool]:
        """Return of each that is not as planned whether it was made."""
        others = [body for body in bodies if not self._stands(job, key, body, begun)]
        return await _all(self._prepare(job, key, body, begun) for body in others)

    def _stands(self, job: FineTuneJob, key: Key, body: Object, begun: bool) -> bool:
        """Tell whether it is there as planned, which nearly every pass finds of everything."""
        known = self.cache.find(key, body["kind"], body["metadata"]["name"])
        if known is None or _why_not_own(job, known):
            return False
        return is_as_planned(known, body, begun)

    async def _prepare(self, job: FineTuneJob, key: Key, body: Object, begun: bool) -> bool:
        """Return whether it was made; it is there as planned then."""
        made = await self._ensure(job, key, body)
        return made or await self._put_right(job, key, body, begun)

    async def _start(
        self, job: FineTuneJob, key: Key, bodies: Iterable[Object], looked_at: bool
    ) -> bool:
        """Return whether anything was made, or is gone as it was not as planned. That is made again
        once nothing runs that it has made, which the next pass sees."""
        made = False
        for body in bodies:
            made = await self._ensure(job, key, body) or made
            if looked_at and (known := self._unplanned(key, body, begun=False)) is not None:
                await self._remove(key, known)
                return True
        return made

    def _lacks(self, job: FineTuneJob, key: Key, children: Iterable[tuple[str, str]]) -> bool:
        """Return whether one has gone since the plan left it out; the others are the job's own."""
        known = [self.cache.find(key, kind, name) for kind, name in children]
        for body in known:
            if body is not None:
                _check_owner(job, body)
        return None in known

    async def _ensure(self, job: FineTuneJob, key: Key, body: Object) -> bool:
        """Return whether it was made; the job's own is there then."""
        known = self.cache.find(key, body["kind"], body["metadata"]["name"])
        if known is not None:
            _check_owner(job, known)
            return False
        known, made = await self._create(body)
        _check_owner(job, known)
        self.cache.answered(known)
        if made:
            self._leave(known, body)
        return made

    async def _put_right(self, job: FineTuneJob, key: Key, body: Object, begun: bool) -> bool:
        """Return whether it was made anew."""
        known = self._unplanned(key, body, begun)
        if known is None:
            return False
        if body["kind"] in _CHANGED:
            changed = await self._change(known, body)
            self.cache.answered(changed)
            self._leave(changed, body)
            return False
        await self._remove(key, known)
        return await self._ensure(job, key, body)

    def _unplanned(self, key: Key, body: Object, begun: bool) -> Object | None:
        """Return what stands in an object's place and is not as planned; None if there is none."""
        known = self.cache.find(key, body["kind"], body["metadata"]["name"])
        if known is None or is_as_planned(known, body, begun) or self.cache.is_left(known, body):
            return None
        return known

    async def _remove(self, key: Key, known: Object) -> None:
        metadata = known["metadata"]
        await self.api.delete(known["kind"], key.namespace, metadata["name"], metadata["uid"])
        self.cache.bury(known)

    def _leave(self, stored: Object, body: Object) -> None:
        """Leave what was just written as it is stored: a webhook that made something else of it
        would do so again, over and over."""
        if body["kind"] != POD and not is_as_planned(kept(stored), body, begun=False):
            self.cache.leave(stored, body)

    async def _change(self, known: Object, body: Object) -> Object:
        """Apply to that very state: what another operator wrote since is looked at first."""
        at = {name: known["metadata"][name] for name in ("uid", "resourceVersion")}
        try:
            return await self._write(
                self.api.apply, {**body, "metadata": {**body["metadata"], **at}}
            )
        except ApiError as error:
            if error.code == 409:
                metadata = body["metadata"]
                found = await self.api.get(body["kind"], metadata["namespace"], metadata["name"])
                self.cache.remove(known) if found is None else self.cache.put(found)
            raise

    async def _create(self, body: Object) -> tuple[Object, bool]:
        """Return what has the name then, and whether it was made."""
        try:
            return await self._write(self.api.create, body), True
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        metadata = body["metadata"]
        found = await self.api.get(body["kind"], metadata["namespace"], metadata["name"])
        if found is None:
            text = f"{body['kind']} {metadata['name']} went away while it was looked at"
            raise Waiting(Reason.NAME_TAKEN, text, _SOON)
        return found, False

    async def _write(self, send: Callable[[Object], Awaitable[Object]], body: Object) -> Object:
        try:
            return await send(body)
        except ApiError as error:
            raise _verdict(body, error) or error from error


def _verdict(body: Object, error: ApiError) -> Waiting | Stalled | None:
    """Return what a refused write means; None if it is worth another try."""
    what = f"{body['kind']} {body['metadata']['name']}"
    if _DENIED.search(error.message):
        return Stalled(Reason.BACKEND_REFUSED, f"{what}: {error.message}")
    unserved = error.reason != "NotFound" or error.message.startswith("the server")
    if error.code == 404 and unserved:
        text = f"the cluster does not serve {body['apiVersion']} {body['kind']}"
        return Waiting(Reason.BACKEND_UNAVAILABLE, text, _LATER)
    if error.code >= 500 and "failed calling webhook" in error.message:
        text = f"{what} has to pass a webhook that does not answer: {error.message}"
        return Waiting(Reason.BACKEND_UNAVAILABLE, text, _LATER)
    if error.code == 403 and _NO_RIGHT.search(error.message):
        text = f"the operator may not write {what}: {error.message}"
        return Waiting(Reason.OPERATOR_FORBIDDEN, text, _LATER)
    if error.code == 403 and _QUOTA.search(error.message):
        text = f"{what} waits for room in a ResourceQuota: {error.message}"
        return Waiting(Reason.BACKEND_REFUSED, text, _LATER)
    if error.code in (400, 403, 422):
        return Stalled(Reason.BACKEND_REFUSED, f"{what}: {error.message}")
    return None


def _check_owner(job: FineTuneJob, known: Object) -> None:
    if why := _why_not_own(job, known):
        raise Waiting(
            Reason.NAME_TAKEN, f"{known['kind']} {known['metadata']['name']} {why}", _SOON
        )


def _why_not_own(job: FineTuneJob, known: Object) -> str | None:
    """Return why the job can not have an object; None if it has."""
    if controller(known).get("uid") != job.uid:
        return f"exists and is not this job's: it belongs to {owner(known)}"
    return "is being deleted" if "deletionTimestamp" in known["metadata"] else None


async def _all(writes: Iterable[Awaitable[T]]) -> list[T]:
    """Run writes side by side; all of them end before the first failure is raised."""
    results = await asyncio.gather(*writes, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]

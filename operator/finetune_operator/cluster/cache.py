"""What the watches have shown: jobs and their children, by the job they belong to.

Watches lag behind, repeat themselves, and may show a pod's deletion before anyone has read its
last words. So an older state never replaces a newer one, a deleted object never comes back, and
what a deleted pod had said is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

from finetune_api.job import KIND
from finetune_operator.cluster.record import Press, Record, version
from finetune_operator.job.kept import kept
from finetune_operator.job.names import (
    UID_LABEL,
    Object,
    attempt_of,
    content_digest,
    controller,
    place,
)
from finetune_operator.job.resources import POD

_TOMBSTONES = 20_000
_DEPARTED = 1024  # of one job; twice as many as an attempt has pods
_FOR_EVER = 2**63


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """A job by namespace and name."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _Departed:
    """A pod that was deleted; what is asked of all whenever one more goes stands beside the record,
    which is costly to read."""

    attempt: int
    maker: str | None  # uid of its controller
    record: Record


@dataclass(slots=True)
class _Family:
    """A job's children by (kind, name), and its pods that were deleted, by uid."""

    children: dict[tuple[str, str], Record] = field(default_factory=dict)
    departed: dict[str, _Departed] = field(default_factory=dict)
    left: dict[str, tuple[int, str | None]] = field(default_factory=dict)  # see Cache.leave


class Cache:
    """`synced` opens once everything has been listed; nothing may be decided before, nor in a
    namespace that is `closed`: what it holds is not known. Of namespaces that are not `chosen`
    nothing is taken in; None: all are."""

    def __init__(self) -> None:
        self.synced = False
        self.closed: set[str] = set()
        self.chosen: set[str] | None = None
        self._jobs: dict[Key, Record] = {}
        self._families: dict[Key, _Family] = {}
        self._tombstones: OrderedDict[str, int] = OrderedDict()  # up to which version it is dead
        self._answered: dict[str, tuple[Key, str, str]] = {}  # by uid; key, kind and name
        self._press = Press()

    def job(self, key: Key) -> Object | None:
        """Return the job's newest body; None if there is no such job."""
        record = self._jobs.get(key)
        return record.body if record else None

    def __contains__(self, key: Key) -> bool:
        return key in self._jobs

    def jobs(self) -> list[tuple[Key, Record]]:
        """Return every job, as of now: the list is made in one step, for threads too."""
        return list(self._jobs.items())

    def children(self, key: Key) -> list[Object]:
        """Return everything with a name of the job's."""
        family = self._families.get(key)
        return [record.body for record in family.children.values()] if family else []

    def departed(self, key: Key) -> list[Object]:
        """Return the last state of the job's deleted pods."""
        family = self._families.get(key)
        return [pod.record.body for pod in family.departed.values()] if family else []

    def find(self, key: Key, kind: str, name: str) -> Object | None:
        """Return one child; None if there is none."""
        record = self._child(key, kind, name)
        return record.body if record else None

    def has(self, key: Key, kind: str, name: str) -> bool:
        """Tell whether there is such a child."""
        return self._child(key, kind, name) is not None

    def put(self, body: Object) -> Key | None:
        """Take in an object's state; return the job to look at, None if nothing is new."""
        key = key_of(body)
        uid = body["metadata"]["uid"]
        if key is None or version(body["metadata"]) <= self._tombstones.get(uid, -1):
            return None
        if not self._takes(key):
            return None
        known = self._known(key, body)
        if known is not None and known.version >= version(body["metadata"]):
            return None
        if known is not None and known.uid != uid:
            self._bury(known.uid, _FOR_EVER)
            self._depart(key, known.body)
            if family := self._families.get(key):
                family.left.pop(known.uid, None)
        record = self._press.record(kept(body))
        if body["kind"] == KIND:
            self._jobs[key] = record
            if known is None or known.uid != uid:
                self._forget_words(key)
        else:
            family = self._families.setdefault(key, _Family())
            family.children[body["kind"], body["metadata"]["name"]] = record
            family.departed.pop(uid, None)
        return key

    def answered(self, body: Object) -> Key | None:
        """Take in an object as a request for it was answered: what no watch by label shows is there
        all the same. Return the job to look at, None if nothing is new."""
        uid = body["metadata"]["uid"]
        if self._tombstones.get(uid) != _FOR_EVER:
            self._tombstones.pop(uid, None)
        news = self.put(body)
        if key := key_of(body):
            self._answered[uid] = (key, body["kind"], body["metadata"]["name"])
        return news

    def unwatched(self) -> list[Object]:
        """Return what is there because it was `answered`: what becomes of it no watch may tell."""
        known = {uid: self.find(*where) for uid, where in self._answered.items()}
        bodies = [body for uid, body in known.items() if body and body["metadata"]["uid"] == uid]
        self._answered = {uid: self._answered[uid] for uid in map(_uid, bodies)}
        return bodies

    def watched(self, body: Object) -> None:
        """Take in that a watch tells what becomes of an object."""
        self._answered.pop(_uid(body), None)

    def remove(self, body: Object, up_to: int = 0) -> Key | None:
        """Take in a deletion; return the job to look at, None if the object was not known.

        A watch by label shows a child that lost its label as deleted: in a version after that one,
        and after `up_to`, it is there again.
        """
        key = key_of(body)
        if key is None:
            return None
        uid = body["metadata"]["uid"]
        self._answered.pop(uid, None)
        up_to = _FOR_EVER if body["kind"] == KIND else max(version(body["metadata"]), up_to)
        self._bury(uid, up_to)
        known = self._known(key, body)
        if known is None or known.uid != uid:
            return None
        if body["kind"] == KIND:
            del self._jobs[key]
        else:
            del self._families[key].children[body["kind"], body["metadata"]["name"]]
            self._families[key].left.pop(uid, None)
            newer = version(body["metadata"]) >= known.version
            self._depart(key, kept(body) if newer else known.body)
        self._forget_if_empty(key)
        return key

    def decides(self, key: Key) -> bool:
        """Tell whether all of the job's objects are known."""
        return self.synced and key.namespace not in self.closed and self._takes(key)

    def _takes(self, key: Key) -> bool:
        return self.chosen is None or key.namespace in self.chosen

    def close(self, namespace: str) -> set[Key]:
        """Forget what a namespace held, which may come back; return its jobs."""
        self.closed.add(namespace)
        gone = {key for key in (*self._jobs, *self._families) if key.namespace == namespace}
        for key in gone:
            self._jobs.pop(key, None)
            self._families.pop(key, None)
        return gone

    def lacks(self, kind: str, listed: Collection[str], at: str, scope: Scope) -> set[Key]:
        """Take in that a list had these uids and no other; return the jobs for which that is new.

        What it lacks is gone, unless it is newer than the list.
        """
        as_of, changed = version({"resourceVersion": at}), set()
        for record in self._all(kind, scope):
            if record.version <= as_of and record.uid not in listed:
                changed.add(self.remove(record.body, as_of))
        return {key for key in changed if key is not None}

    def bury(self, body: Object) -> None:
        """Take in that an object is gone for good, whatever a watch has yet to show of it."""
        self.remove(body, _FOR_EVER)

    def leave(self, stored: Object, planned: Object) -> None:
        """Note that a child which was written as planned was stored otherwise."""
        if (key := key_of(stored)) and (family := self._families.get(key)):
            family.left[stored["metadata"]["uid"]] = _state(stored, planned)

    def is_left(self, stored: Object, planned: Object) -> bool:
        """Tell whether a child stands as it was stored then, and the plan is still that one."""
        key = key_of(stored)
        family = self._families.get(key) if key else None
        state = family.left.get(stored["metadata"]["uid"]) if family else None
        return state == _state(stored, planned)

    def _known(self, key: Key, body: Object) -> Record | None:
        if body["kind"] == KIND:
            return self._jobs.get(key)
        return self._child(key, body["kind"], body["metadata"]["name"])

    def _child(self, key: Key, kind: str, name: str) -> Record | None:
        family = self._families.get(key)
        return family.children.get((kind, name)) if family else None

    def _all(self, kind: str, scope: Scope) -> list[Record]:
        if kind == KIND:
            return [r for key, r in self._jobs.items() if scope in (None, key.namespace)]
        if isinstance(scope, Key):
            families = [self._families.get(scope) or _Family()]
        else:
            near = self._families.items()
            families = [f for key, f in near if scope in (None, key.namespace)]
        return [r for f in families for (k, _), r in f.children.items() if k == kind]

    def _depart(self, key: Key, body: Object) -> None:
        """Keep a pod's last words while its attempt is the newest of the job that has the name."""
        if body["kind"] != POD or not self._is_of_the_job(key, body):
            return
        departed = self._families.setdefault(key, _Family()).departed
        maker = controller(body).get("uid")
        pod = _Departed(attempt_of(body) or 0, maker, self._press.record(body))
        for uid in [u for u, other in departed.items() if other.attempt < pod.attempt]:
            del departed[uid]
        departed[body["metadata"]["uid"]] = pod
        if len(departed) > _DEPARTED:
            del departed[self._least_needed(key, departed)]

    def _least_needed(self, key: Key, departed: dict[str, _Departed]) -> str:
        """Return the pod that went first, of those that nothing made which the job has: anyone may
        make pods of such a name, and delete them, as long as he likes."""
        family = self._families.get(key) or _Family()
        there = {record.uid for record in family.children.values()}
        strays = (uid for uid, pod in departed.items() if pod.maker not in there)
        return next(strays, next(iter(departed)))

    def _forget_words(self, key: Key) -> None:
        """Drop what pods of an earlier job of the name had said."""
        family = self._families.get(key)
        if family and family.departed:
            departed = family.departed.items()
            family.departed = {
                uid: pod for uid, pod in departed if self._is_of_the_job(key, pod.record.body)
            }

    def _is_of_the_job(self, key: Key, body: Object) -> bool:
        """Tell whether an object is of the job that has the name now, or no job has it."""
        job = self._jobs.get(key)
        labels = body["metadata"].get("labels") or {}
        return job is None or labels.get(UID_LABEL) == job.uid

    def _bury(self, uid: str, up_to: int) -> None:
        self._tombstones[uid] = max(up_to, self._tombstones.get(uid, 0))
        if len(self._tombstones) > _TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _forget_if_empty(self, key: Key) -> None:
        family = self._families.get(key)
        if family and key not in self._jobs and not family.children:
            del self._families[key]


def _uid(body: Object) -> str:
    return str(body["metadata"]["uid"])


def _state(stored: Object, planned: Object) -> tuple[int, str | None]:
    return version(stored["metadata"]), content_digest(planned)


Scope = Key | str | None  # one job's children, one namespace, or everything


def key_of(body: Object) -> Key | None:
    """Return the job that an object is, or that its name has room for; no label moves it."""
    metadata = body["metadata"]
    if body["kind"] == KIND:
        return Key(metadata["namespace"], metadata["name"])
    found = place(body)
    return Key(metadata["namespace"], found.job) if found else None

"""Rows: the operator, its API server, and what users do."""

from __future__ import annotations

import asyncio
import copy
from datetime import timedelta
from typing import Any

from finetune_operator.cluster.api import ApiError, Unreachable
from finetune_operator.cluster.clock import ServerClock
from finetune_operator.cluster.election import Candidate, Election
from support.faults.day import Day
from support.faults.nodes import EVICTION, WORKER, goes
from support.faults.starting import is_let_in, is_refused
from support.faults.table import Fault, Strike
from support.operator.model.leases import LeaseServer

Json = Any
AWAY_SECONDS = 60
AHEAD = timedelta(minutes=15)
drain = goes(WORKER, EVICTION)


class Leases:
    """The Lease of operators, asked for without delay."""

    def __init__(self, server: LeaseServer) -> None:
        self._server = server

    async def get(self, kind: str, namespace: str, name: str) -> Json:
        return self._server.get()

    async def create(self, body: Json) -> Json:
        return self._server.write(body)

    async def replace(self, body: Json) -> Json:
        return self._server.write(body)

    async def close(self) -> None:
        pass


def starts_anew(day: Day) -> None:
    day.kill_operators()
    day.start_operator()


def is_killed(day: Day) -> None:
    """Kill the operator that leads, while a pod goes; another stands by, and is not told."""
    leases, clock = Leases(LeaseServer()), asyncio.get_running_loop().time

    def election(name: str) -> Election:
        return Election(leases, Candidate("system", "lead", name), clock)

    leader, other = election("leader"), election("other")
    day.do(leader.run(lambda: True, lambda: None))

    def kill() -> None:
        assert leader.leads()
        day.kill_operators()
        made = day.start_operator(other.leads)
        day.do(other.run(lambda: True, made._look_at_all))
        day.struck = day.now()
        drain(day)

    day.later(20, kill)


def has_another_beside_it(day: Day) -> None:
    day.start_operator()
    drain(day)


def is_away(error: Exception, meanwhile: Strike = lambda day: None) -> Strike:
    def strike(day: Day) -> None:
        day.api.broken = error
        day.later(AWAY_SECONDS, lambda: setattr(day.api, "broken", None))
        meanwhile(day)

    return strike


def is_ahead(day: Day) -> None:
    """Set the operator's clock wrong; each answer of the API server has a Date."""
    day.api.clock = ServerClock(lambda: day.now() + AHEAD)
    starts_anew(day)


def edits(**policy: Json) -> Strike:
    """Change the job's runPolicy."""

    def strike(day: Day) -> None:
        job = copy.deepcopy(day.world.job())
        job["spec"]["runPolicy"] = {**job["spec"].get("runPolicy", {}), **policy}
        job["metadata"]["generation"] += 1
        day.world.store(job)

    return strike


def respells(**spec: Json) -> Strike:
    """Change stanzas of the job's spec."""

    def strike(day: Day) -> None:
        job = copy.deepcopy(day.world.job())
        job["spec"] |= spec
        job["metadata"]["generation"] += 1
        day.world.store(job)

    return strike


def passes_its_deadline(day: Day) -> None:
    day.world.polite = True
    so_far = asyncio.get_running_loop().time()
    edits(activeDeadlineSeconds=round(so_far) + 10)(day)
    day.struck = day.now() + timedelta(seconds=10)


def forbids(day: Day) -> None:
    day.api.forbidden.add("gone")


def is_suspended(day: Day) -> None:
    day.world.polite = True
    edits(suspend=True)(day)


NEWER = {"warp": 9}
PLAIN = {"uri": "hf://o/m"}
CACHED = {**PLAIN, "cache": {"hostPath": "/var"}}
BUG = ApiError(500, "InternalError", "etcdserver: request timed out")
FAULTS = [
    Fault("the operator starts anew", starts_anew, harmless=True),
    Fault("the leader is killed as a node is drained", is_killed),
    Fault("two operators work at once, a node is drained", has_another_beside_it),
    Fault(
        "the operator's clock is 15 minutes ahead",
        is_ahead,
        harmless=True,
        spec={"runPolicy": {"activeDeadlineSeconds": 600}},
    ),
    Fault("the API server is away for 60 s", is_away(Unreachable("no answer")), harmless=True),
    Fault("… and a node is drained meanwhile", is_away(Unreachable("no answer"), drain)),
    Fault(
        "the API server fails each creation",
        is_refused("PyTorchJob", BUG),
        before=True,
        mend=is_let_in,
    ),
    Fault(
        "the operator has a bug",
        is_refused("PyTorchJob", KeyError("x")),
        before=True,
        mend=is_let_in,
    ),
    Fault(
        "another watched namespace is gone",
        forbids,
        before=True,
        harmless=True,
        settings={"watch_namespaces": ("gone", "team")},
    ),
    Fault("a newer CRD's field in a job that runs", respells(training=NEWER), harmless=True),
    Fault(
        "a newer CRD's field in a new job",
        respells(training=NEWER),
        before=True,
        mend=respells(training={}),
    ),
    Fault(
        "a `hostPath` that the chart does not allow",
        respells(model=CACHED),
        before=True,
        mend=respells(model=PLAIN),
    ),
    Fault("the user suspends the job", is_suspended, mend=edits(suspend=False)),
    Fault("`activeDeadlineSeconds` pass", passes_its_deadline),
]

"""Whatever pods, trainers and hands write: no pass over the job raises, its status stays one that
the API takes, and its suspension holds."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

from finetune_api.crd import schema
from finetune_api.validation import validate as validate_body
from finetune_api.yaml_text import load_documents
from finetune_contract.progress import ANNOTATION
from finetune_operator.job_metrics import JobMetrics
from kube_schema.structural import validate
from support.operator.hostile import PROGRESS, RESULT, TIMES, mutants, told
from support.operator.hostile_specs import files, specs
from support.operator.model.world import World
from support.operator.passes import Bench
from support.operator.values import stamp

Json = Any
CHECKS: Json = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
FEW = settings(max_examples=25, **CHECKS)
MANY = settings(max_examples=5_000, **CHECKS)
POD = "bot-a1-master-0"
ENDED = {"exitCode": 1, "reason": "Error", "finishedAt": stamp(5), "message": "m"}
POD_STATUS = {
    "phase": "Running",
    "reason": "r",
    "message": "m",
    "conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(1)},
        {"type": "DisruptionTarget", "status": "True", "reason": "r", "message": "m"},
    ],
    "initContainerStatuses": [
        {"name": "rewards", "restartCount": 3, "state": {"terminated": ENDED}, "image": "i"}
    ],
    "containerStatuses": [{"name": "pytorch", "state": {"terminated": ENDED}, "image": "i"}],
}
WAITING = {
    **POD_STATUS,
    "phase": "Pending",
    "containerStatuses": [
        {"name": "pytorch", "state": {"waiting": {"reason": "ErrImagePull", "message": "m"}}}
    ],
}
GOING = {"deletionTimestamp": stamp(9), "deletionGracePeriodSeconds": 30}
CONDITIONS = [{"type": kind, "status": "True"} for kind in ("Created", "Running", "Failed")]
WORKLOAD_STATUS = {"conditions": CONDITIONS, "startTime": stamp(1), "lastReconcileTime": stamp(1)}
FIXED = ("ConfigMap", "NetworkPolicy", "PyTorchJob", "Role", "RoleBinding", "ServiceAccount")
SAID = {"type": "Warning", "reason": "FailedMount", "message": "m", "lastTimestamp": stamp(2)}


@cache
def _running() -> World:
    bench = Bench()
    asyncio.run(_run(bench))
    return bench.world


async def _run(bench: Bench) -> None:
    await bench.do_pass()
    bench.world.train_operator()
    bench.world.kubelet(POD)
    bench.world.train(POD, 3, save=True)
    await bench.do_pass()


def running() -> Bench:
    """Return an operator that begins over a job that runs."""
    return Bench(copy.deepcopy(_running()))


async def judged(bench: Bench) -> None:
    """Let some passes be done; each must succeed, and none leave a status that is refused."""
    for _ in range(2):
        await bench.do_pass()
        bench.world.collect()
    status = copy.deepcopy(bench.world.job().get("status", {}))
    wrong = validate(schema()["properties"]["status"], status)
    assert not wrong, wrong[:3]


async def holds(bench: Bench) -> None:
    """The job can still be judged and measured, and its suspension ends what runs."""
    await judged(bench)
    now = datetime.now(UTC)
    generate_latest(JobMetrics(bench.cache, lambda: now, lambda: True))  # type: ignore[arg-type]
    job = bench.world.job()
    spec = {**job["spec"], "runPolicy": {"suspend": True}}
    metadata = {**job["metadata"], "generation": 2}
    bench.world.store({**job, "spec": spec, "metadata": metadata})
    await judged(bench)
    bench.world.now += timedelta(minutes=1)  # pods of a job that is over may end by themselves
    await judged(bench)
    for (kind, _), body in bench.world.objects.items():
        told_to_end = "deletionTimestamp" in body["metadata"]
        if kind == "Pod" and not told_to_end:
            assert body["status"].get("phase") not in ("Pending", "Running"), "it still runs"


def changed(bench: Bench, kind: str, name: str, **parts: Json) -> None:
    bench.world.store({**copy.deepcopy(bench.world.objects[kind, name]), **parts})


async def hostile_result(message: str, times: str) -> None:
    bench = running()
    ended = {**ENDED, "message": message, "finishedAt": times}
    status = copy.deepcopy(bench.world.objects["Pod", POD]["status"]) | {"phase": "Failed"}
    status["containerStatuses"][0]["state"] = {"terminated": ended}
    changed(bench, "Pod", POD, status=status)
    await holds(bench)


async def hostile_lease(text: str, renewed: str) -> None:
    bench = running()
    metadata = copy.deepcopy(bench.world.objects["Lease", "bot-a1"]["metadata"])
    metadata["annotations"][ANNOTATION] = text
    changed(bench, "Lease", "bot-a1", metadata=metadata, spec={"renewTime": renewed})
    await holds(bench)


async def hostile_pod(status: Json, going: Json) -> None:
    bench = running()
    metadata = {**bench.world.objects["Pod", POD]["metadata"], **going}
    changed(bench, "Pod", POD, status=status, metadata=metadata)
    await judged(bench)
    if ("Pod", POD) in bench.world.objects:
        changed(bench, "Pod", POD, status={"phase": "Failed"})
    await holds(bench)


async def hostile_event(events: list[Json], status: Json) -> None:
    bench = running()
    bench.api.events = events
    changed(bench, "Pod", POD, status=status)
    bench.world.now += timedelta(minutes=1)
    await holds(bench)


async def hostile_workload(status: Json, suspended: Json) -> None:
    bench = running()
    changed(bench, "PyTorchJob", "bot-a1", status=status, spec={"runPolicy": suspended})
    await holds(bench)


async def hostile_status(status: Json) -> None:
    bench = running()
    bench.world.store({**copy.deepcopy(bench.world.job()), "status": status})
    await holds(bench)


async def hostile_object(content: tuple[str, Json], metadata: Json) -> None:
    """Whatever stands where an object is to be made: what the pods are given is as planned."""
    (kind, parts), bench, planned = content, Bench(), _running().objects
    name = next(n for k, n in planned if k == kind)
    uid = bench.world.job()["metadata"]["uid"]
    assert uid == _running().job()["metadata"]["uid"], "the owner that is forged"
    stood = {**parts, "kind": kind, "metadata": {**metadata, "name": name, "namespace": "team"}}
    bench.world.add(copy.deepcopy(stood))
    await judged(bench)
    attempts = bench.status().get("attempts") or [{}]
    if attempts[0].get("workloadUid"):
        for key in (key for key in planned if key[0] in FIXED):
            for part in planned[key].keys() - {"metadata", "status"}:
                assert bench.world.objects[key].get(part) == planned[key][part], (key, part)
    await holds(bench)


async def any_spec(spec: Json) -> None:
    bench = Bench()
    bench.world.store({**bench.world.job(), "spec": spec})
    await judged(bench)


async def any_file(text: str) -> None:
    try:
        bodies = load_documents(text)
    except yaml.YAMLError:
        return
    for body in bodies:
        validate_body(body)


def statuses() -> st.SearchStrategy[Json]:
    good = copy.deepcopy(_running().job()["status"])
    over = copy.deepcopy(good)
    over["attempts"][0] |= {
        "state": "Failed",
        "endTime": stamp(9),
        "reason": "Evicted",
        "message": "m",
    }
    check = {"state": "Running", "plan": "p", "startTime": stamp(0), "endTime": stamp(1)}
    return mutants(good, over, {**good, "rewardCheck": check})


def any_type(*good: Json) -> st.SearchStrategy[Json]:
    """Parts of objects: of the types that a server asks for, and of any."""
    return mutants(*good, typed=True) | mutants(*good)


def contents() -> st.SearchStrategy[tuple[str, Json]]:
    """Kinds of what the operator makes, each with what may stand in its place."""
    bodies = {k: b for (k, _), b in _running().objects.items() if k in (*FIXED, "Lease")}
    parts = {k: {n: v for n, v in b.items() if n != "metadata"} for k, b in bodies.items()}
    drawn = [st.tuples(st.just(k), st.just(p) | mutants(p, typed=True)) for k, p in parts.items()]
    return st.one_of(drawn)


def metadata() -> st.SearchStrategy[Json]:
    """What a server lets anyone write into an object's metadata, the job's uid included."""
    known = _running().objects["Role", "bot-a1"]["metadata"]
    owned = {name: known[name] for name in ("labels", "annotations", "ownerReferences")}
    held = {**owned, "finalizers": ["a.b/c"], "deletionTimestamp": stamp(1)}
    return st.sampled_from([owned, {**owned, "labels": {}}, held, {}]) | mutants(owned, typed=True)


def pods() -> st.SearchStrategy[Json]:
    return any_type(POD_STATUS, WAITING)


def events() -> st.SearchStrategy[Json]:
    return any_type(SAID).filter(lambda event: isinstance(event, dict))


FUZZED: dict[str, tuple[Any, Any]] = {
    "results": (hostile_result, (told(RESULT), st.sampled_from(TIMES))),
    "leases": (hostile_lease, (told(PROGRESS), st.sampled_from(TIMES))),
    "pods": (hostile_pod, (pods(), st.just({}) | mutants(GOING, typed=True))),
    "events": (hostile_event, (st.lists(events(), max_size=3), pods())),
    "workloads": (hostile_workload, (any_type(WORKLOAD_STATUS), any_type({"suspend": True}))),
    "objects": (hostile_object, (contents(), metadata())),
    "statuses": (hostile_status, (statuses(),)),
    "specs": (any_spec, (specs(),)),
    "files": (any_file, (files(),)),
}


def fuzz(what: str, how: settings) -> None:
    run, drawn = FUZZED[what]

    @how
    @given(st.tuples(*drawn))
    def try_it(values: Json) -> None:
        asyncio.run(run(*values))

    try_it()


@pytest.mark.parametrize("what", FUZZED)
def test_nothing_hostile_stops_a_job(what: str) -> None:
    fuzz(what, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("what", FUZZED)
def test_nothing_hostile_stops_a_job_long(what: str) -> None:
    fuzz(what, MANY)

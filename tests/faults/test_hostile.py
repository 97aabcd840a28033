"""Whatever pods, trainers and hands write: no pass over the job raises, its status stays one that
the API takes, and its suspension holds."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_api.crd import schema
from finetune_contract.progress import ANNOTATION
from kube_schema.structural import validate
from support.operator.hostile import PROGRESS, RESULT, TIMES, mutants, specs, told
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


async def running() -> Bench:
    bench = Bench()
    await bench.do_pass()
    bench.world.train_operator()
    bench.world.kubelet(POD)
    bench.world.train(POD, 3, save=True)
    await bench.do_pass()
    return bench


async def passes(bench: Bench) -> None:
    """Let some passes be done; each must succeed, and none leave a status that is refused."""
    for _ in range(2):
        await bench.do_pass()
        bench.world.collect()
    status = copy.deepcopy(bench.world.job().get("status", {}))
    wrong = validate(schema()["properties"]["status"], status)
    assert not wrong, wrong[:3]


async def holds(bench: Bench) -> None:
    """The job can still be judged, and its suspension ends what runs."""
    await passes(bench)
    job = bench.world.job()
    spec = {**job["spec"], "runPolicy": {"suspend": True}}
    metadata = {**job["metadata"], "generation": 2}
    bench.world.store({**job, "spec": spec, "metadata": metadata})
    await passes(bench)
    for (kind, _), body in bench.world.objects.items():
        told_to_end = "deletionTimestamp" in body["metadata"]
        if kind == "Pod" and not told_to_end:
            assert body["status"].get("phase") not in ("Pending", "Running"), "it still runs"


async def hostile_result(message: str, times: str) -> None:
    bench = await running()
    pod = copy.deepcopy(bench.world.objects["Pod", POD])
    ended = {**ENDED, "message": message, "finishedAt": times}
    pod["status"] |= {"phase": "Failed"}
    pod["status"]["containerStatuses"][0]["state"] = {"terminated": ended}
    bench.world.store(pod)
    await holds(bench)


async def hostile_lease(text: str, renewed: str) -> None:
    bench = await running()
    lease = copy.deepcopy(bench.world.objects["Lease", "bot-a1"])
    lease["metadata"]["annotations"][ANNOTATION] = text
    lease["spec"] = {"renewTime": renewed}
    bench.world.store(lease)
    await holds(bench)


async def hostile_pod(status: Json) -> None:
    bench = await running()
    pod = copy.deepcopy(bench.world.objects["Pod", POD])
    bench.world.store({**pod, "status": status})
    await passes(bench)
    bench.world.store({**bench.world.objects.get(("Pod", POD), pod), "status": {"phase": "Failed"}})
    await holds(bench)


async def hostile_status(status: Json) -> None:
    bench = await running()
    bench.api._check_status = lambda old, believed, new: None
    bench.world.store({**copy.deepcopy(bench.world.job()), "status": status})
    await holds(bench)


async def any_spec(spec: Json) -> None:
    bench = Bench()
    job = bench.world.job()
    bench.world.store({**job, "spec": spec})
    await passes(bench)


def statuses() -> st.SearchStrategy[Json]:
    bench = asyncio.run(running())
    good = copy.deepcopy(bench.world.job()["status"])
    over = copy.deepcopy(good)
    over["attempts"][0] |= {
        "state": "Failed",
        "endTime": stamp(9),
        "reason": "Evicted",
        "message": "m",
    }
    check = {"state": "Running", "plan": "p", "startTime": stamp(0), "endTime": stamp(1)}
    return mutants(good, over, {**good, "rewardCheck": check})


FUZZED: dict[str, tuple[Any, Any]] = {
    "results": (hostile_result, (told(RESULT), st.sampled_from(TIMES))),
    "leases": (hostile_lease, (told(PROGRESS), st.sampled_from(TIMES))),
    "pods": (hostile_pod, (mutants(POD_STATUS, WAITING, typed=True),)),
    "statuses": (hostile_status, (statuses(),)),
    "specs": (any_spec, (specs(),)),
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

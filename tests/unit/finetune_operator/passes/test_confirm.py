"""What still runs is found by its name, whatever was done to its labels."""

import copy
from datetime import timedelta

import pytest

from finetune_operator.cluster.queue import RetryLater
from support.operator.model.api_server import Fault
from support.operator.passes import Bench, Json

POD = "bot-a1-master-0"


async def running() -> Bench:
    bench = Bench()
    await bench.do_pass()
    bench.world.train_operator()
    bench.world.kubelet(POD)
    await bench.do_pass()
    assert bench.status()["attempts"][0]["podUids"]
    return bench


def strip(bench: Bench, kind: str, name: str, *more: str) -> None:
    """Take the labels from an object, and more of its metadata."""
    body = copy.deepcopy(bench.world.objects[kind, name])
    for field in ("labels", *more):
        del body["metadata"][field]
    bench.world.store(body)


def suspend(bench: Bench, suspended: bool) -> None:
    job: Json = copy.deepcopy(bench.world.job())
    job["spec"]["runPolicy"] = {"suspend": suspended}
    job["metadata"]["generation"] += 1
    bench.world.store(job)


@pytest.mark.parametrize(("kind", "name"), [("PyTorchJob", "bot-a1"), ("Pod", POD)])
async def test_an_attempt_goes_on_though_labels_are_taken_from_it(kind: str, name: str) -> None:
    bench = await running()
    strip(bench, kind, name)
    for _ in range(2):
        await bench.do_pass()
    (attempt,) = bench.status()["attempts"]
    assert attempt["state"] == "Running"
    bench.world.drop(kind, name)
    await bench.do_pass()
    assert bench.status()["attempts"][0]["reason"] == "PodLost"


@pytest.mark.parametrize("more", [(), ("ownerReferences",)])
async def test_a_suspension_ends_a_workload_without_labels(more: tuple[str, ...]) -> None:
    bench = await running()
    strip(bench, "PyTorchJob", "bot-a1", *more)
    suspend(bench, True)
    await bench.do_pass()
    assert ("PyTorchJob", "bot-a1") not in bench.world.objects


async def test_nothing_is_asked_for_that_was_never_seen() -> None:
    bench = Bench()
    asked: list[str] = []
    get = bench.api.get

    async def listening(kind: str, namespace: str, name: str) -> Json | None:
        asked.append(name)
        return await get(kind, namespace, name)

    bench.api.get = listening  # type: ignore[method-assign]
    await bench.do_pass()
    await bench.do_pass()
    assert asked == []


@pytest.mark.parametrize("lost", [False, True], ids=["at once", "after a restart"])
async def test_no_attempt_begins_beside_a_lease_without_labels_of_the_last(lost: bool) -> None:
    bench = await running()
    strip(bench, "Lease", "bot-a1")
    bench.world.end(POD, "TrainerError")
    bench.world.train_operator()
    await bench.do_pass()
    assert bench.status()["attempts"][0]["state"] == "Failed"
    bench.world.now += timedelta(minutes=1)
    if lost:  # the answer to the record of the next attempt, and with it all that was known
        bench.api.fault = Fault(0, after=True, crash=False)
        with pytest.raises(RetryLater):
            await bench.do_pass()
        assert len(bench.status()["attempts"]) == 2
        bench.forget()
    await bench.do_pass()
    assert ("PyTorchJob", "bot-a2") in bench.world.objects
    assert ("Lease", "bot-a1") not in bench.world.objects


async def test_no_attempt_begins_beside_such_a_lease_in_the_pass_that_ends_the_last() -> None:
    bench = await running()
    strip(bench, "Lease", "bot-a1")
    suspend(bench, True)
    await bench.do_pass()
    bench.world.drop("Pod", POD)
    suspend(bench, False)
    await bench.do_pass()
    assert ("PyTorchJob", "bot-a2") in bench.world.objects
    assert ("Lease", "bot-a1") not in bench.world.objects


async def test_what_made_pods_is_found_though_status_tells_nothing_of_it() -> None:
    bench = await running()
    strip(bench, "PyTorchJob", "bot-a1")
    job = copy.deepcopy(bench.world.job())
    del job["status"]["attempts"][0]["workloadUid"]
    job["status"]["attempts"][0]["state"] = "Starting"
    bench.world.store(job)
    bench.forget()
    await bench.do_pass()
    assert ("PyTorchJob", "bot-a1") not in bench.world.objects, "nothing else would end it"

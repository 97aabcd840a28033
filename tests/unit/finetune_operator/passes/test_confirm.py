"""What still runs is found by its name, whatever was done to its labels."""

import copy

import pytest

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
    job: Json = copy.deepcopy(bench.world.job())
    job["spec"]["runPolicy"] = {"suspend": True}
    job["metadata"]["generation"] = 2
    bench.world.store(job)
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

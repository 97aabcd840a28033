"""A job over which passes fail: its status says so, and its deadline and suspension hold."""

from datetime import timedelta

import pytest

from finetune_operator.cluster.api import ApiError
from finetune_operator.cluster.queue import RetryLater
from support.operator.backends import OneObject
from support.operator.jobs import bot_job
from support.operator.model.world import World
from support.operator.passes import KEY, Bench, Json
from support.operator.values import stamp


class Surprise(Exception):
    pass


class Moody(OneObject):
    """While its objects can not be read, every pass fails before anything is decided."""

    readable = True

    def outcome(self, workload: Json) -> bool | None:
        if not self.readable:
            raise SURPRISE
        return super().outcome(workload)


async def failing(runs: int, error: Exception, **spec: Json) -> Bench:
    """A job whose attempt runs, and over which so many passes then fail."""
    bench = Bench(World(backend=Moody()))
    bench.world.add(bot_job(**spec))
    await bench.do_pass()
    bench.world.train_operator()
    await bench.do_pass()
    bench.world.drop("Role", "bot-a1")
    bench.refusals["Role"] = error  # type: ignore[assignment]
    await fail(bench, runs)
    return bench


async def fail(bench: Bench, runs: int) -> None:
    for _ in range(runs):
        with pytest.raises((RetryLater, Surprise)):
            await bench.do_pass()


SURPRISE = Surprise("row 7 is secret")


async def test_what_fails_thrice_stands_in_the_conditions() -> None:
    bench = await failing(2, SURPRISE)
    assert bench.told("Reconciling")[1] == "Pending"
    await fail(bench, 1)
    truth, reason, message = bench.told("Reconciling")
    assert (truth, reason) == ("True", "OperatorError")
    assert "passes over the job fail: Surprise at " in message
    assert "row 7" not in message
    assert bench.told("Succeeded")[0] == "Unknown"
    writes = bench.world.writes
    await fail(bench, 2)
    assert bench.world.writes == writes, "it is said once"
    bench.refusals.clear()
    await bench.do_pass()
    assert bench.told("Reconciling")[1] == "Pending"
    bench.world.drop("Role", "bot-a1")
    bench.refusals["Role"] = SURPRISE  # type: ignore[assignment]
    await fail(bench, 2)
    assert bench.told("Reconciling")[1] == "Pending", "it counts anew"


async def test_what_the_server_refuses_seven_times_stands_in_its_words() -> None:
    bench = await failing(6, ApiError(500, "InternalError", "etcd is slow"))
    assert bench.told("Reconciling")[1] == "Pending"
    await fail(bench, 1)
    _, reason, message = bench.told("Reconciling")
    assert reason == "OperatorError"
    assert "500 InternalError: etcd is slow" in message


async def change(bench: Bench, **policy: Json) -> None:
    bench.world.backend.readable = False  # type: ignore[attr-defined]
    job = bench.world.job()
    bench.world.store({**job, "spec": {**job["spec"], "runPolicy": policy}})
    await bench.relist()


@pytest.mark.parametrize(
    ("policy", "reason"),
    [({"suspend": True}, "Suspended"), ({"activeDeadlineSeconds": 50}, "DeadlineExceeded")],
)
async def test_suspension_and_deadline_hold_though_every_pass_fails(
    policy: Json, reason: str
) -> None:
    bench = await failing(3, SURPRISE)
    await change(bench, **policy)
    if reason != "Suspended":
        bench.world.now += timedelta(seconds=49)
        await fail(bench, 1)
        assert ("PyTorchJob", "bot-a1") in bench.world.objects
        bench.world.now += timedelta(seconds=1)
    await fail(bench, 1)
    (attempt,) = bench.status()["attempts"]
    assert (attempt["state"], attempt["reason"]) == ("Stopping", reason)
    assert attempt["endTime"] == stamp(0 if reason == "Suspended" else 50)
    assert ("PyTorchJob", "bot-a1") not in bench.world.objects
    assert ("ConfigMap", "bot-a1") in bench.world.objects
    assert bench.told("Reconciling")[1] == "OperatorError"


async def test_a_deadline_counts_anew_for_a_job_that_was_let_go_on() -> None:
    bench = Bench()
    await bench.do_pass()
    body = bench.world.job()
    (first,) = body["status"]["attempts"]
    ended = {**first, "state": "Failed", "reason": "DataInvalid", "endTime": stamp(60)}
    begun = {**first, "number": 2, "startTime": stamp(60)}
    retry = {"retries": 1, "afterAttempt": 1}
    body["status"] = {**body["status"], "attempts": [ended, begun], "retry": retry}
    body["metadata"]["generation"] = 2
    body["spec"] = {"model": "x", "runPolicy": {"activeDeadlineSeconds": 50}}
    bench.world.store(body)
    bench.world.now += timedelta(seconds=70)
    assert await bench.do_pass() == 40
    assert "reason" not in bench.status()["attempts"][1]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [({"suspend": True}, "Suspended"), ({"activeDeadlineSeconds": 50}, "DeadlineExceeded")],
)
async def test_they_hold_for_a_spec_that_can_not_be_read(policy: Json, reason: str) -> None:
    bench = Bench()
    await bench.do_pass()
    job = bench.world.job()
    job["spec"] = {"model": "x", "runPolicy": policy}
    job["metadata"]["generation"] = 2
    bench.world.store(job)
    if reason != "Suspended":
        assert await bench.do_pass() == 50
        assert ("PyTorchJob", "bot-a1") in bench.world.objects
        bench.world.now += timedelta(seconds=50)
    assert await bench.do_pass() is None
    assert bench.told("Stalled")[1] == "InvalidSpec"
    assert bench.status()["attempts"][0]["reason"] == reason
    assert ("PyTorchJob", "bot-a1") not in bench.world.objects


@pytest.mark.parametrize("spec", [{}, {"model": "x"}], ids=["read", "not to be read"])
async def test_a_start_that_was_edited_into_the_future_is_the_present(spec: Json) -> None:
    bench = Bench()
    await bench.do_pass()
    job = bench.world.job()
    job["status"]["attempts"][0]["startTime"] = stamp(9000)
    job["spec"] = {**job["spec"], **spec, "runPolicy": {"activeDeadlineSeconds": 50}}
    job["metadata"]["generation"] = 2
    bench.world.store(job)
    await bench.do_pass()
    assert bench.told("Succeeded")[1] == ("InvalidSpec" if spec else "Pending")
    bench.world.now += timedelta(seconds=50)
    await bench.do_pass()
    assert bench.status()["attempts"][0]["reason"] == "DeadlineExceeded"


@pytest.mark.parametrize("spec", [None, "x", {"runPolicy": 7}, {"runPolicy": {"suspend": "yes"}}])
async def test_a_spec_of_any_form_is_told_of(spec: Json) -> None:
    bench = Bench()
    await bench.do_pass()
    job = bench.world.job()
    bench.world.store({**job, "spec": spec, "metadata": {**job["metadata"], "generation": 2}})
    assert await bench.do_pass() is None
    assert bench.told("Stalled")[1] == "InvalidSpec"
    assert ("PyTorchJob", "bot-a1") in bench.world.objects


async def test_an_end_holds_though_the_status_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = await failing(3, SURPRISE)
    await change(bench, suspend=True)

    def refuse(*_: Json) -> None:
        raise ApiError(422, "Invalid", "status.x: no")

    bench.api._check_status = refuse
    await fail(bench, 1)
    assert ("PyTorchJob", "bot-a1") not in bench.world.objects
    (told,) = (record for record in caplog.records if "status.x: no" in record.getMessage())
    assert told.exc_info is None, "a server's refusal tells enough"


async def test_what_is_none_of_the_jobs_is_left_alone() -> None:
    bench = await failing(3, SURPRISE)
    owner = {"kind": "Deployment", "name": "x", "uid": "x", "controller": True}
    metadata = {
        "name": "bot-rewards",
        "labels": bench.world.objects["Lease", "bot-a1"]["metadata"]["labels"],
    }
    bench.world.add({"kind": "Pod", "metadata": {**metadata, "ownerReferences": [owner]}})
    await change(bench, suspend=True)
    await fail(bench, 1)
    assert ("Pod", "bot-rewards") in bench.world.objects


async def test_the_attempts_own_workload_goes_whoever_it_is_said_to_belong_to() -> None:
    bench = await failing(3, SURPRISE)
    workload = bench.world.objects["PyTorchJob", "bot-a1"]
    assert bench.status()["attempts"][0]["workloadUid"] == workload["metadata"]["uid"]
    bench.world.store({**workload, "metadata": {**workload["metadata"], "ownerReferences": []}})
    await change(bench, suspend=True)
    await fail(bench, 1)
    assert ("PyTorchJob", "bot-a1") not in bench.world.objects


async def test_a_finished_job_stays_finished() -> None:
    bench = Bench()
    bench.refusals["PyTorchJob"] = ApiError(422, "Invalid", "no")
    await bench.do_pass()
    before = bench.status()
    job = bench.world.job()
    bench.world.store({**job, "spec": {}, "metadata": {**job["metadata"], "generation": 2}})
    assert await bench.do_pass() is None
    assert bench.status() == before


async def test_a_job_that_is_gone_is_forgotten() -> None:
    bench = await failing(2, SURPRISE)
    bench.cache.remove(bench.world.job())
    assert await bench.reconciler.reconcile(KEY) is None
    assert not bench.reconciler._failures


async def test_what_is_unreadable_in_a_status_is_written_over() -> None:
    bench = Bench()
    job = bench.world.job()
    told = {"attempts": [{"number": "one"}], "checkpoint": {"step": "x"}, "rain": 1}
    bench.world.store({**job, "status": told})
    bench.api._check_status = lambda old, believed, new: None
    await bench.do_pass()
    assert [a["number"] for a in bench.status()["attempts"]] == [1]
    assert "checkpoint" not in bench.status()
    writes = bench.world.writes
    assert await bench.do_pass() == 3
    assert bench.world.writes == writes

"""What must never happen in a World, and what must hold when a job has finished."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from support.operator.model.world import (
    FINISHED,
    GRACE,
    World,
    artifact,
    attempt_of,
    belongs,
    tries_rewards,
)

Json = Any
FENCE = 60  # seconds


def may_create(world: World, body: Json) -> None:
    """Object to a workload that could run, or commit, beside another; and to untried rewards."""
    if body["kind"] == "Pod":
        _may_try(world)
    if body["kind"] != world.backend.workload:
        return
    if has_code(world.job()):
        assert world.job()["status"]["rewardCheck"]["state"] == "Passed", "its rewards are untried"
        assert world.tried, "nobody tried them"
    attempt = attempt_of(body)
    status = world.job()["status"]
    last = status["attempts"][-1]
    assert last["number"] == attempt, "it does not stand in status as the newest attempt"
    assert last["state"] == "Starting", f"its state is {last['state']}"
    assert "workloadUid" not in last, "it had been made before"
    succeeded = {c["type"]: c["status"] for c in status["conditions"]}["Succeeded"]
    assert succeeded == "Unknown", "a finished job never runs again"
    fenced = _fenced(world, status["attempts"])
    for pod in world.live_pods():
        assert attempt_of(pod) in fenced, f"{pod['metadata']['name']} still runs"
    for lease in world.all("Lease"):
        assert attempt_of(lease) == attempt, "the Lease of an older attempt stands"
    for other in world.all(world.backend.workload):
        older = attempt_of(other)
        over = world.backend.outcome(other) is not None
        assert older in fenced or over, "another stands"


def _may_try(world: World) -> None:
    status = world.job()["status"]
    assert not status.get("attempts"), "an attempt was first"
    assert status["rewardCheck"]["state"] == "Running", "it is over"
    assert "podUid" not in status["rewardCheck"], "the last one was not counted"


def has_code(job: Json) -> bool:
    """Tell whether a job has reward functions of its own."""
    return "grpo" in job["spec"].get("method", {})


def _fenced(world: World, attempts: list[Json]) -> set[int]:
    long_ago = world.now - timedelta(seconds=FENCE + GRACE)
    stamp = long_ago.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {a["number"] for a in attempts if a.get("endTime", "9") <= stamp}


def may_follow(world: World, old: Json, believed: Json, new: Json) -> None:
    """Object to a status that forgets, goes back, or mixes attempts up."""
    assert believed == old, "a patch made from something else leaves what should go"
    saved, known = new.get("checkpoint"), old.get("checkpoint")
    if known is not None:
        assert saved is not None, "the checkpoint was forgotten"
        assert saved["step"] >= known["step"], "the checkpoint went back"
    if saved is not None:
        assert saved["step"] <= world.saved["step"], "nobody saved it"
    was_tried = old.get("rewardCheck", {})
    if was_tried.get("state") in ("Passed", "Failed") and not _goes_on(world, old, new):
        assert new["rewardCheck"] == was_tried, "a verdict on the rewards was forgotten"
    before = {a["number"]: a for a in old.get("attempts", [])}
    for attempt in new.get("attempts", []):
        was = before.get(attempt["number"], {})
        if was.get("state") in ("Failed", "Suspended", "Succeeded"):
            counts = {k: v for k, v in attempt.items() if k in ("lastStep", "lostSteps")}
            assert attempt == was | counts, "the record of a closed attempt changed"
        if "lastStep" in attempt:
            done = world.most_steps[attempt["number"]]
            # The pod that published tells the steps of the artifact, whatever another had done.
            least = 0 if attempt["state"] == "Succeeded" else was.get("lastStep", 0)
            steps = (least, attempt["lastStep"], done)
            assert sorted(steps) == list(steps), f"attempt {attempt['number']} counts {steps}"
            assert 0 <= attempt.get("lostSteps", 0) <= attempt["lastStep"]
        if "resumedStep" in was:
            assert attempt["resumedStep"] == was["resumedStep"]
    if progress := new.get("progress"):
        assert progress["attempt"] == new["attempts"][-1]["number"]
        assert progress["step"] <= world.most_steps[progress["attempt"]]


def _goes_on(world: World, old: Json, new: Json) -> bool:
    """Tell whether a job that has failed goes on; object if nobody has asked for it."""
    before, after = old.get("retry", {}), new.get("retry", {})
    told = {"conditions": old.get("conditions", [])}
    if condition({"status": told}, "Succeeded") not in ("True", "False"):
        assert before.get("afterAttempt", 0) == after.get("afterAttempt", 0)
        return False
    if condition({"status": new}, "Succeeded") == condition({"status": old}, "Succeeded"):
        return False
    assert condition({"status": told}, "Succeeded") == "False", "a job that succeeded ran again"
    wanted = world.job()["spec"]["runPolicy"]["retries"]
    assert before.get("retries", 0) < after["retries"] <= wanted, "nobody asked for it"
    assert after["afterAttempt"] == len(old.get("attempts", []))
    return True


def check_the_end(world: World) -> None:
    job = world.job()
    status = job["status"]
    attempts = status.get("attempts", [])
    tried = status.get("rewardCheck", {}).get("state")
    assert tried == (("Passed" if attempts else "Failed") if has_code(job) else None)
    assert [a["number"] for a in attempts] == list(range(1, len(attempts) + 1))
    assert all(a["state"] in ("Failed", "Suspended") for a in attempts[:-1])
    if condition(job, "Succeeded") == "True":
        told = dict(status["artifact"])
        accepted = told.pop("attempt")
        assert accepted == attempts[-1]["number"]
        assert accepted in world.committed, "nobody committed what status shows"
        assert told == artifact(job["metadata"]["uid"], accepted)
        assert (condition(job, "Ready"), condition(job, "Stalled")) == ("True", None)
    else:
        assert (condition(job, "Ready"), condition(job, "Stalled")) == ("False", "True")
        assert not attempts or attempts[-1]["state"] == "Failed"
    assert condition(job, "Reconciling") is None
    kept = f"-a{attempts[-1]['number']}" if attempts else "-rewards"
    strays = [
        (k, n)
        for (k, n), b in world.objects.items()
        if k != "Pod" and belongs(b, "bot") and kept not in n
    ]
    lost = world.unreachable
    held = [p for p in world.all("Pod") if p["metadata"]["name"] not in lost or tries_rewards(p)]
    assert all(p["status"]["phase"] in FINISHED for p in held), "it holds a node for nobody"
    assert all(name == "bot-finetune" for _, name in strays), strays


def condition(job: Json, kind: str) -> str | None:
    """Return a condition's status, if it stands in the job's."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == kind), None)

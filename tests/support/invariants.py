"""What must never happen in a World, and what must hold when a job has finished."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from finetune_operator.backends.pytorchjob import PyTorchJob
from support.model_world import WORKLOAD, World, artifact, attempt_of, belongs

Json = Any
FENCE = 60  # seconds
GRACE = 10


def may_create(world: World, body: Json) -> None:
    """Object to a workload that could run, or commit, beside another."""
    if body["kind"] != WORKLOAD:
        return
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
    for other in world.all(WORKLOAD):
        older = attempt_of(other)
        assert older in fenced or PyTorchJob().outcome(other) is not None, "another stands"


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


def check_the_end(world: World) -> None:
    job = world.job()
    status = job["status"]
    attempts = status["attempts"]
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
        assert attempts[-1]["state"] == "Failed"
    assert condition(job, "Reconciling") is None
    strays = [
        (k, n)
        for (k, n), b in world.objects.items()
        if k != "Pod" and belongs(b, "bot") and f"-a{attempts[-1]['number']}" not in n
    ]
    assert all(name == "bot-finetune" for _, name in strays), strays


def condition(job: Json, kind: str) -> str | None:
    """Return a condition's status, if it stands in the job's."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == kind), None)

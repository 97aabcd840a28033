"""What must never happen in a World, and what must hold when a job has finished."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from finetune_api.job import KIND
from finetune_contract.reasons import TABLE, Reason, Retry
from support.operator.model.store import RFC3339, is_watched
from support.operator.model.strangers import FORGED, PLANTED, SHARED, is_planted
from support.operator.model.trainers import artifact, attempt_of, tries_rewards
from support.operator.model.world import FINISHED, GRACE, World, owner_uid

Json = Any
FENCE = 60  # seconds
UNSURE = 7  # seconds by which an operator's clock may be wrong without its noticing
MOST_LOST = 4  # attempts in a row that the infrastructure may end


def may_create(world: World, body: Json) -> None:
    """Object to a workload that could run, or commit, beside another; and to untried rewards."""
    if not world.all(KIND):
        return  # it was on its way when the job was deleted, and goes as what has lost its owner
    if body["kind"] == "Pod" and not world.edited:
        _may_try(world)
    if body["kind"] != world.backend.workload:
        return
    attempt, job = attempt_of(body), world.job()
    # A hand may write status while a workload that rests on an older one is on its way.
    stood = [*world.statuses, *world.edits] if world.edited else [job["status"]]
    wrong = [_is_unrecorded(status, attempt) for status in stood]
    assert "" in wrong, wrong[-1]
    if not world.edited:
        (status,) = stood
        assert "workloadUid" not in status["attempts"][-1], "it had been made before"
        if has_code(job):
            assert status["rewardCheck"]["state"] == "Passed", "its rewards are untried"
            assert world.tried, "nobody tried them"
    for pod in world.live_pods():
        assert _is_fenced(world, pod), f"{pod['metadata']['name']} still runs"
    for lease in world.all("Lease"):
        own = owner_uid(lease) == job["metadata"]["uid"]
        assert not own or attempt_of(lease) == attempt, "the Lease of an older attempt stands"
    for other in world.all(world.backend.workload):
        if owner_uid(other) == job["metadata"]["uid"]:
            over = world.backend.outcome(other) is not None
            assert over or _is_fenced(world, other), "another stands"
    places = [(k, f"bot-a{attempt}") for k in PLANTED] + [(k, "bot-finetune") for k in SHARED]
    for kind, name in places:
        found = world.find(kind, name)
        assert not is_planted(found), f"{kind} {name} was planted"
        assert found is None or owner_uid(found) == job["metadata"]["uid"], "it is a stranger's"


def _is_unrecorded(status: Json, attempt: int) -> str:
    """Return why a status lets nobody make an attempt's workload; "" if it does."""
    if condition({"status": status}, "Succeeded") in ("True", "False"):
        return "a finished job never runs again"
    last = (status.get("attempts") or [{}])[-1]
    if last.get("number") != attempt:
        return "it does not stand in status as the newest attempt"
    return "" if last["state"] == "Starting" else f"its state is {last['state']}"


def may_run(world: World, pod: Json) -> None:
    """Object to a pod that starts while one of another attempt runs."""
    for other in world.live_pods():
        if other["status"]["phase"] == "Running" and attempt_of(other) != attempt_of(pod):
            assert _is_fenced(world, other), f"{other['metadata']['name']} still runs"


def may_delete(world: World, body: Json, at_once: bool) -> None:
    """Object to the deletion of a stranger's object, of a pod whose attempt goes on, and of one
    without its time to save."""
    if body["metadata"]["uid"] in world.made:
        attempts = world.job()["status"].get("attempts", [])
        over = attempt_of(body) in [a["number"] for a in attempts if "endTime" in a]
        makers = [w["metadata"]["uid"] for w in world.all(world.backend.workload)]
        assert world.edited or over or owner_uid(body) not in makers, "it is at work"
        assert not at_once, "it gets no time to end"
        return
    by = (body["metadata"].get("ownerReferences") or [{}])[0]
    assert (by.get("kind"), by.get("name")) == (KIND, "bot"), f"{body['metadata']} is a stranger's"
    assert not at_once or tries_rewards(body), "it gets no time to end"


def _may_try(world: World) -> None:
    status = world.job()["status"]
    assert not status.get("attempts"), "an attempt was first"
    assert status["rewardCheck"]["state"] == "Running", "it is over"
    assert "podUid" not in status["rewardCheck"], "the last one was not counted"


def has_code(job: Json) -> bool:
    """Tell whether a job has reward functions of its own."""
    return "grpo" in job["spec"].get("method", {})


def _is_fenced(world: World, body: Json) -> bool:
    """Tell whether what an object stands for was waited for as long as one may."""
    now = world.now + timedelta(seconds=UNSURE)
    if world.edited:  # status tells no times; a deletion's is when the grace is over
        stamp = (now - timedelta(seconds=FENCE)).strftime(RFC3339)
        return bool(body["metadata"].get("deletionTimestamp", "9") <= stamp)
    stamp = (now - timedelta(seconds=FENCE + GRACE)).strftime(RFC3339)
    attempts = world.job()["status"].get("attempts", [])
    return attempt_of(body) in {a["number"] for a in attempts if a.get("endTime", "9") <= stamp}


def may_follow(world: World, old: Json, believed: Json, new: Json) -> None:
    """Object to a status that forgets, goes back, or mixes attempts up."""
    assert believed == old, "a patch made from something else leaves what should go"
    world.statuses.append(new)
    _may_succeed(world, old, new)
    if world.edited:
        return
    goes_on = _goes_on(world, old, new)
    saved, known = new.get("checkpoint"), old.get("checkpoint")
    if known is not None:
        assert saved is not None, "the checkpoint was forgotten"
        assert saved["step"] >= known["step"], "the checkpoint went back"
    if saved is not None:
        most = world.saved["step"] if world.saved else -1
        assert saved["step"] <= most, "nobody saved it"
    was_tried = old.get("rewardCheck", {})
    if was_tried.get("state") in ("Passed", "Failed") and not goes_on:
        assert new["rewardCheck"] == was_tried, "a verdict on the rewards was forgotten"
    before = {a["number"]: a for a in old.get("attempts", [])}
    assert len(before) <= len(new.get("attempts", [])) <= len(before) + 1, "attempts went or came"
    for attempt in new.get("attempts", []):
        _may_be(world, before.get(attempt["number"], {}), attempt)
    if progress := new.get("progress"):
        assert progress["attempt"] == new["attempts"][-1]["number"]
        assert progress["step"] <= world.most_steps[progress["attempt"]]
        known = old.get("progress", {})
        if known.get("attempt") == progress["attempt"]:
            assert known["step"] <= progress["step"], "progress went back"


def _may_succeed(world: World, old: Json, new: Json) -> None:
    before, after = ({"status": status} for status in (old, new))
    if condition(after, "Succeeded") != "True" or condition(before, "Succeeded") == "True":
        return
    stood = any(a["state"] == "Succeeded" for a in old.get("attempts", []))
    if not (world.edited and stood):
        assert new["attempts"][-1]["number"] in world.committed, "nobody committed it"
        assert new["artifact"]["digest"] != FORGED["digest"], "it is a stranger's"


def _may_be(world: World, was: Json, attempt: Json) -> None:
    """Object to the record of an attempt that was another."""
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
    for name in ("resumedStep", "workloadUid", "startTime", "image", "runningTime"):
        if name in was:
            assert attempt[name] == was[name], f"{name} changed"


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


def obeys(world: World, job: Json, now: datetime) -> None:
    """Object to an attempt that goes on although the job's spec, as the operator has just looked
    at it, says that it may not."""
    if condition(job, "Succeeded") in ("True", "False"):
        return
    policy = job["spec"]["runPolicy"]
    status = world.job().get("status", {})
    live = [a for a in status.get("attempts", []) if a["state"] in ("Starting", "Running")]
    assert not (live and policy.get("suspend")), "it was told to suspend"
    seconds = policy.get("activeDeadlineSeconds")
    if live and seconds and not world.edited:
        after = status.get("retry", {}).get("afterAttempt", 0)
        counted = [a for a in status["attempts"] if a["number"] > after]
        ran = sum((_ran(a, now) for a in counted), timedelta())
        assert ran <= timedelta(seconds=seconds + UNSURE * len(counted)), "its deadline is over"


def _ran(attempt: Json, now: datetime) -> timedelta:
    start, end = (datetime.fromisoformat(attempt[t]) for t in ("startTime", "startTime"))
    end = datetime.fromisoformat(attempt["endTime"]) if "endTime" in attempt else now
    return max(timedelta(), end - start)


def check_the_end(world: World) -> None:
    """Object to how a job has finished, and to what is left of it."""
    job = world.job()
    attempts = job["status"].get("attempts", [])
    if not world.edited:
        _check_record(world, job, attempts)
    if condition(job, "Succeeded") == "True":
        assert (condition(job, "Ready"), condition(job, "Stalled")) == ("True", None)
    else:
        assert (condition(job, "Ready"), condition(job, "Stalled")) == ("False", "True")
        _check_failure(job, attempts)
    assert condition(job, "Reconciling") is None
    kept = f"-a{attempts[-1]['number']}" if attempts else "-rewards"
    uid = job["metadata"]["uid"]
    # What lost its labels is seen by nobody; it goes with the job.
    own = [b for b in world.objects.values() if owner_uid(b) == uid and is_watched(b)]
    left = [b["metadata"]["name"] for b in own if b["kind"] != "Pod"]
    strays = [name for name in left if kept not in name and name != "bot-finetune"]
    lost = world.unreachable
    ours = [p for p in world.all("Pod") if world.is_real(p)]
    held = [p for p in ours if p["metadata"]["name"] not in lost or tries_rewards(p)]
    assert all(p["status"]["phase"] in FINISHED for p in held), "it holds a node for nobody"
    assert not strays, strays


def _check_record(world: World, job: Json, attempts: list[Json]) -> None:
    tried = job["status"].get("rewardCheck", {}).get("state")
    assert tried == (("Passed" if attempts else "Failed") if has_code(job) else None)
    assert [a["number"] for a in attempts] == list(range(1, len(attempts) + 1))
    assert all(a["state"] in ("Failed", "Suspended") for a in attempts[:-1])
    if condition(job, "Succeeded") == "True":
        told = dict(job["status"]["artifact"])
        accepted = told.pop("attempt")
        assert accepted == attempts[-1]["number"]
        assert accepted in world.committed, "nobody committed what status shows"
        assert told == artifact(job["metadata"]["uid"], accepted)
    elif attempts:
        # The deadline may have come before an attempt that was suspended was followed by another.
        late = "DeadlineExceeded" in [c["reason"] for c in job["status"]["conditions"]]
        assert attempts[-1]["state"] in (["Failed", "Suspended"] if late else ["Failed"])


def _check_failure(job: Json, attempts: list[Json]) -> None:
    """Object to a failure by what passes, of a job that has trained."""
    conditions = job["status"]["conditions"]
    reason = Reason(next(c["reason"] for c in conditions if c["type"] == "Succeeded"))
    if any(a.get("lastStep") for a in attempts):
        row = TABLE[reason]
        assert (row.once_begun or row.retry) is not Retry.WAIT, f"it had trained: {reason}"


def condition(job: Json, kind: str) -> str | None:
    """Return a condition's status, if it stands in the job's."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == kind), None)

"""The operator's journey on an API server, under the permissions that its chart grants.

It is a process of its own; training-operator, kubelet and trainer are played by the test.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.cluster.bench import CHILD_KINDS, Bench, condition, now
from support.operator.charts import LEASE
from support.operator.values import resolved

CANARY = "canary-5f0c1d7e"
BOT = ("finetunejobs", "bot")
UIDS = ("workloadUid", "podUids")  # what an attempt's record knows its own by
Json = Any


async def versions(bench: Bench) -> dict[str, str]:
    """The resourceVersion of the job and of every child: what no write leaves as it was."""
    found = {}
    for plural in ("finetunejobs", *CHILD_KINDS, "events"):
        for item in await bench.items(plural):
            found[f"{plural}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    del found[f"leases/{LEASE}"]  # of the operators
    return found


async def start_attempt(bench: Bench, attempt: int = 1) -> list[str]:
    names = await bench.pods_appear(attempt)
    await bench.pods_run(names)
    await bench.until_reason("Running")
    return names


async def test_from_apply_to_a_verified_artifact(bench: Bench) -> None:
    job = await bench.apply()
    await start_attempt(bench)
    account = bench.api.as_token(await bench.token("bot-finetune"))
    beat = await bench.heartbeat(account, 1, phase="Train", done=23, total=60, loss=0.5)
    assert beat.status == 200, beat.body
    await bench.until(
        "finetunejobs",
        "bot",
        lambda b: b["status"].get("progress", {}).get("summary") == "Train 23/60",
        "progress",
    )
    artifact = await bench.succeed(1)
    done = await bench.until_reason("Succeeded")
    assert done["status"]["artifact"] == {**artifact, "attempt": 1}
    truth = {c["type"]: c["status"] for c in done["status"]["conditions"]}
    assert truth == {"Ready": "True", "Succeeded": "True"}
    assert done["status"]["observedGeneration"] == 1
    assert "finalizers" not in done["metadata"]
    assert "annotations" not in done["metadata"]
    for plural in CHILD_KINDS:
        for item in await bench.items(plural):
            owners = item["metadata"].get("ownerReferences", [])
            if item["metadata"]["name"].startswith("bot-") and plural != "pods":
                assert [o["uid"] for o in owners] == [job["metadata"]["uid"]], item


async def test_a_job_may_touch_nothing_but_its_lease(bench: Bench) -> None:
    await bench.apply()
    await bench.pods_appear(1)
    account = bench.api.as_token(await bench.token("bot-finetune"))
    other = {"metadata": {"name": "other"}, "spec": {}}
    await bench.api.post(bench.path("leases"), other)
    refused = [
        await account.merge(bench.path("leases", "other"), {"spec": {}}),
        await account.get(bench.path("secrets")),
        await account.get(bench.path("configmaps")),
        await account.get(bench.path("finetunejobs", "bot")),
        await account.get(bench.path("pods")),
        await account.delete(bench.path("leases", "bot-a1")),
    ]
    assert [answer.status for answer in refused] == [403] * len(refused)


async def test_out_of_memory_is_tried_again_with_half_of_what_auto_chose(bench: Bench) -> None:
    job = await bench.apply()
    names = await start_attempt(bench)
    account = bench.api.as_token(await bench.token("bot-finetune"))
    uri = f"s3://adapters/bot/runs/{job['metadata']['uid']}/a1/checkpoints/00000004"
    saved = {"attempt": 1, "step": 4, "uri": uri}
    plan = json.loads(resolved(8).to_json())
    await bench.heartbeat(account, 1, phase="Train", done=6, step=6, checkpoint=saved, plan=plan)
    told = await bench.until(
        "finetunejobs", "bot", lambda b: "checkpoint" in b["status"], "the checkpoint"
    )
    assert told["status"]["checkpoint"] == saved
    assert told["status"]["plan"]["memory"]["estimate"] == resolved(8).memory.total
    await bench.pod_ends(names[1], 137, "OOMKilled")
    lost = {
        "attempt": 1,
        "outcome": "Failed",
        "reason": "DistributedFailure",
        "message": "rank 1 went away",
    }
    await bench.pod_ends(names[0], 23, "Error", lost)
    await bench.workload_ends(1, "Failed")
    await bench.until_gone("pods", names[0])
    await bench.until_gone("leases", "bot-a1")
    await start_attempt(bench, 2)
    await bench.succeed(2)
    job = await bench.until_reason("Succeeded")
    first, second = job["status"]["attempts"]
    assert (first["reason"], first["microBatchSize"]) == ("OutOfMemory", 8)
    assert (first["lastStep"], first["lostSteps"]) == (6, 2)
    assert (second["state"], second["microBatchSize"]) == ("Succeeded", 4)
    assert job["status"]["checkpoint"] == saved
    told_by_events = {"AttemptStarted", "AttemptFailed", "Running", "Succeeded"}

    async def all_told() -> bool:
        return told_by_events <= {e["reason"] for e in await bench.items("events")}

    await bench.eventually(all_told, "the Events")


async def test_suspended_and_resumed(bench: Bench) -> None:
    await bench.apply()
    names = await start_attempt(bench)
    path = bench.path("finetunejobs", "bot")
    await bench.api.merge(path, {"spec": {"runPolicy": {"suspend": True}}})
    await bench.until_gone("pytorchjobs", "bot-a1")
    await bench.until_gone("pods", names[0])
    job = await bench.until(
        "finetunejobs", "bot", lambda b: condition(b, "Suspended"), "the suspension"
    )
    assert condition(job, "Reconciling") == {}
    await bench.api.merge(path, {"spec": {"runPolicy": {"suspend": False}}})
    await start_attempt(bench, 2)
    job = await bench.get("finetunejobs", "bot")
    assert condition(job, "Suspended") == {}
    assert [a["state"] for a in job["status"]["attempts"]] == ["Suspended", "Running"]


async def test_a_new_operator_finds_everything_done(bench: Bench) -> None:
    await bench.apply()
    await start_attempt(bench)
    bench.stop()  # it hands over, so that the next need not wait
    before = await versions(bench)
    bench.start()
    url = f"http://127.0.0.1:{bench.port}"
    async with aiohttp.ClientSession() as session:

        async def ready() -> bool:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientConnectionError:
                return False

        await bench.eventually(ready, "the operator to be ready")

        async def passed() -> bool:
            async with session.get(f"{url}/metrics") as answer:
                text = await answer.text()
            return 'finetune_operator_reconciles_total{outcome="done"}' in text

        await bench.eventually(passed, "a pass over the job")
    assert await versions(bench) == before


@pytest.mark.slow
async def test_a_workload_that_no_status_knows_is_kept_as_planned_and_else_made_anew(
    bench: Bench,
) -> None:
    await bench.apply()
    await start_attempt(bench)
    first = await bench.get("pytorchjobs", "bot-a1")
    assert first is not None
    bench.stop()

    async def recorded() -> str:
        path, job = bench.path("finetunejobs", "bot", "status"), await bench.get(*BOT)
        assert job is not None
        attempt = {k: v for k, v in job["status"]["attempts"][0].items() if k not in UIDS}
        await bench.api.merge(path, {"status": {"attempts": [attempt]}})
        bench.start()
        seen = await bench.until(
            *BOT, lambda b: b["status"]["attempts"][0].get("workloadUid"), "the workload's uid"
        )
        bench.stop()
        return str(seen["status"]["attempts"][0]["workloadUid"])

    assert await recorded() == first["metadata"]["uid"]
    other = {"spec": {"nprocPerNode": "9"}}
    await bench.api.merge(bench.path("pytorchjobs", "bot-a1"), other)
    found = await recorded()
    made = await bench.get("pytorchjobs", "bot-a1")
    assert made is not None
    assert found == made["metadata"]["uid"] != first["metadata"]["uid"]
    assert made["spec"] == first["spec"]


async def test_a_missing_secret_is_named_until_it_is_there(bench: Bench) -> None:
    await bench.apply()
    names = await bench.pods_appear(1)
    for name in names:
        await bench.pod_state(name, "Pending", {"waiting": {"reason": "ContainerCreating"}})
        pod = await bench.get("pods", name)
        event = {
            "metadata": {"name": f"{name}.mount"},
            "type": "Warning",
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed for volume "data-credentials" : '
            'secret "s3" not found',
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": bench.namespace,
                "name": name,
                "uid": pod["metadata"]["uid"],
            },
        }
        made = await bench.api.post(bench.path("events"), event)
        assert made.status == 201, made.body
    job = await bench.until_reason("SecretNotFound")
    message = condition(job, "Reconciling")["message"]
    assert '"s3"' in message
    assert "spec.data.credentialsSecretRef" in message
    await bench.pods_run(names)
    await bench.until_reason("Running")


async def test_a_name_that_is_taken_is_waited_for_and_left_alone(bench: Bench) -> None:
    foreign = {"metadata": {"name": "bot-a1"}, "data": {"key": "value"}}
    made = await bench.api.post(bench.path("configmaps"), foreign)
    await bench.apply()
    job = await bench.until_reason("NameTaken")
    assert "ConfigMap bot-a1" in condition(job, "Reconciling")["message"]
    assert await bench.get("configmaps", "bot-a1") == made.body
    assert await bench.get("pytorchjobs", "bot-a1") is None
    await bench.api.delete(bench.path("configmaps", "bot-a1"))
    await bench.pods_appear(1)


async def test_bad_data_ends_the_job_and_names_the_row(bench: Bench) -> None:
    await bench.apply()
    names = await start_attempt(bench)
    result = {
        "attempt": 1,
        "outcome": "Failed",
        "reason": "DataInvalid",
        "message": "s3://d/a.jsonl line 7: no assistant turn",
        "rank": 0,
    }
    await bench.pod_ends(names[0], 12, "Error", result)
    await bench.pod_ends(names[1], 23, "Error")
    await bench.workload_ends(1, "Failed")
    job = await bench.until_reason("DataInvalid")
    truth = {c["type"]: c["status"] for c in job["status"]["conditions"]}
    assert truth == {"Ready": "False", "Stalled": "True", "Succeeded": "False"}
    assert "line 7" in condition(job, "Stalled")["message"]
    assert await bench.get("pods", names[0]) is not None, "its log is what the user reads next"


async def test_deleting_a_job_leaves_nothing(bench: Bench) -> None:
    await bench.apply()
    await start_attempt(bench)
    await bench.api.delete(bench.path("finetunejobs", "bot"))

    async def nothing_left() -> bool:
        names = [i["metadata"]["name"] for plural in CHILD_KINDS for i in await bench.items(plural)]
        return not [name for name in names if name.startswith("bot-")]

    await bench.eventually(nothing_left, "the children to go", 60)


async def test_no_secret_value_appears_anywhere(bench: Bench) -> None:
    secret = {"metadata": {"name": "s3"}, "stringData": {"AWS_SECRET_ACCESS_KEY": CANARY}}
    made = await bench.api.post(bench.path("secrets"), secret)
    assert made.status == 201
    await bench.apply()
    names = await start_attempt(bench)
    # Even a trainer that writes its log into the termination message does not get it into status.
    end = {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now()}
    await bench.pod_state(names[0], "Failed", {"terminated": {**end, "message": f"key {CANARY}"}})
    await bench.pod_ends(names[1], 1, "Error")
    await bench.workload_ends(1, "Failed")
    await bench.pods_appear(2)
    encoded = base64.b64encode(CANARY.encode()).decode()
    for plural in ("finetunejobs", *CHILD_KINDS, "events"):
        if plural != "pods":
            text = str(await bench.items(plural))
            assert CANARY not in text, plural
            assert encoded not in text, plural
    for pod in await bench.items("pods"):
        assert CANARY not in str(pod["spec"]) + str(pod["metadata"])
    assert CANARY not in bench.log()
    assert bench.operator is not None
    operator = bench.operator.first.pid
    arguments = Path(f"/proc/{operator}/cmdline").read_text()
    environment = Path(f"/proc/{operator}/environ").read_text()
    assert CANARY not in arguments + environment

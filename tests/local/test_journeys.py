"""From kubectl apply to a verified adapter, and what of its ways astray takes real pods to see.

How each attempt ends and what follows is the matter of tests/golden, tests/faults and tests/kube.
"""

from pathlib import Path

import pytest

from finetune_local.demo_bucket import write_secret
from finetune_trainer.store.artifacts import open_artifact
from support.cluster.journey import Journey, condition, job

KINDS = "pytorchjobs,pods,configmaps,leases,roles,rolebindings,serviceaccounts,networkpolicies"


def _children(journey: Journey, name: str) -> list[str]:
    return [
        f"{item['kind']}/{item['metadata']['name']}"
        for item in journey.items(KINDS, f"finetune.dev/job={name}")
    ]


def _delete(journey: Journey, name: str) -> None:
    journey.kubectl("delete", "finetunejob", name)
    journey.wait(f"nothing to be left of {name}", lambda: not _children(journey, name))


def test_apply_ends_in_a_verified_adapter(journey: Journey, tmp_path: Path) -> None:
    journey.apply(job("happy"))
    done = journey.wait_for_success("happy")
    status = done["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "True",
        "Succeeded": "True",
    }
    assert status["observedGeneration"] == done["metadata"]["generation"]
    assert [a["state"] for a in status["attempts"]] == ["Succeeded"]
    plan = status["plan"]
    assert (plan["workers"], plan["processes"], plan["gpus"]) == (2, 2, 0)
    assert (plan["microBatchSize"], plan["accumulationSteps"]) == (2, 1)
    assert {r["role"]: r["found"] == r["adapted"] > 0 for r in plan["lora"]} == {
        "Attention": True,
        "MLP": True,
    }
    assert 0 < plan["memory"]["estimate"] < plan["memory"]["available"]
    write_secret(tmp_path / "secret", journey.secret_keys)
    adapter = open_artifact(
        "s3://journey/adapters/happy", str(tmp_path / "secret"), tmp_path / "adapter"
    )
    assert (adapter / "adapter_model.safetensors").stat().st_size > 0
    table = journey.kubectl("get", "ftj", "happy", "--output=wide")
    assert "Succeeded" in table
    assert status["artifact"]["uri"] in table

    def reasons() -> set[str]:
        events = journey.items("events")
        return {e["reason"] for e in events if e["involvedObject"]["name"] == "happy"}

    assert journey.wait("the end to be told", lambda: "Succeeded" in reasons())


def test_a_bad_spec_is_refused_by_field(journey: Journey) -> None:
    bad = job("bad", training={"epochs": 1})
    with pytest.raises(AssertionError, match=r"spec\.training\.maxSteps.*not both"):
        journey.apply(bad)


def test_what_the_user_got_wrong_is_named(journey: Journey) -> None:
    journey.apply(job("bad-row", data="data/bad-row.jsonl"))
    stalled = condition(journey.wait_for_end("bad-row"), "Stalled")
    assert stalled["reason"] == "DataInvalid"
    for text in ("bad-row.jsonl", "7", "completion"):
        assert text in stalled["message"]
    assert len(journey.attempts("bad-row")) == 1, "what only the user can mend is not retried"


def test_a_missing_secret_is_named_while_waiting_and_gives_its_place_back(journey: Journey) -> None:
    journey.apply(job("no-secret", secret="missing"))
    waiting = journey.wait_for_reason("no-secret", "SecretNotFound")
    said = [
        c["message"] for c in waiting["status"]["conditions"] if c["reason"] == "SecretNotFound"
    ]
    assert '"missing"' in said[0]
    assert "create the Secret" in said[0]
    stalled = condition(journey.wait_for_end("no-secret"), "Stalled")
    assert stalled["reason"] == "StartTimeout"
    assert "missing" in stalled["message"]
    journey.wait("pods to go", lambda: not journey.items("pods", "finetune.dev/job=no-secret"))


@pytest.mark.parametrize(
    ("name", "workers", "reason", "says"),
    [
        ("no-image", {"image": "ghcr.io/nobody/nothing:1"}, "ImageUnavailable", "workers.image"),
        (
            "no-gpu",
            {"resources": {"limits": {"nvidia.com/gpu": 1}}},
            "Unschedulable",
            "nvidia.com/gpu",
        ),
    ],
)
def test_what_keeps_pods_from_starting_is_named(
    journey: Journey, name: str, workers: dict, reason: str, says: str
) -> None:
    # The worker's init container does not listen to SIGTERM.
    policy = {"terminationGracePeriodSeconds": 10}
    journey.apply(job(name, workers=workers, runPolicy=policy))
    waiting = journey.wait_for_reason(name, reason)
    assert says in condition(waiting, "Reconciling")["message"]
    _delete(journey, name)

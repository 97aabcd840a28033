"""From kubectl apply to a verified adapter, and every way in which a job may end instead."""

from pathlib import Path

import pytest

from finetune_local.demo_bucket import write_secret
from finetune_trainer.store.artifacts import open_artifact
from support.journey import Journey, condition, job

LONG = {"maxSteps": 100_000}
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


def test_deletion_leaves_nothing(journey: Journey) -> None:
    journey.apply(job("deleted", training=LONG))
    journey.wait_for_training("deleted")
    assert len(_children(journey, "deleted")) >= 8
    _delete(journey, "deleted")


def test_the_deadline_ends_a_job(journey: Journey) -> None:
    journey.apply(job("late", training=LONG, runPolicy={"activeDeadlineSeconds": 20}))
    ended = condition(journey.wait_for_end("late"), "Stalled")
    assert ended["reason"] == "DeadlineExceeded"
    assert "activeDeadlineSeconds" in ended["message"]
    journey.wait("pods to go", lambda: not journey.items("pods", "finetune.dev/job=late"))


def test_a_bad_spec_is_refused_by_field(journey: Journey) -> None:
    bad = job("bad", training={"epochs": 1})
    with pytest.raises(AssertionError, match=r"spec\.training\.maxSteps.*not both"):
        journey.apply(bad)


@pytest.mark.parametrize(
    ("name", "change", "reason", "says"),
    [
        (
            "no-data",
            {"data": "data/none.jsonl"},
            "DataNotFound",
            ["s3://journey/data/none.jsonl", "spec.data.train"],
        ),
        (
            "bad-row",
            {"data": "data/bad-row.jsonl"},
            "DataInvalid",
            ["bad-row.jsonl", "7", "completion"],
        ),
        (
            "wrong-key",
            {"secret": "wrong"},
            "AccessDenied",
            ["credentialsSecretRef"],
        ),
    ],
)
def test_what_the_user_got_wrong_is_named(
    journey: Journey, name: str, change: dict, reason: str, says: list[str]
) -> None:
    journey.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "wrong"},
            "stringData": {**journey.secret_keys, "AWS_SECRET_ACCESS_KEY": "not-the-key"},
        },
        job(name, **change),
    )
    stalled = condition(journey.wait_for_end(name), "Stalled")
    assert stalled["reason"] == reason
    for text in says:
        assert text in stalled["message"]
    assert len(journey.attempts(name)) == 1, "what only the user can mend is not retried"


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


def test_a_secret_made_in_time_lets_the_job_go_on(journey: Journey) -> None:
    journey.apply(job("patient", secret="coming"))
    journey.wait_for_reason("patient", "SecretNotFound")
    journey.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "coming"},
            "stringData": journey.secret_keys,
        }
    )
    journey.wait_for_success("patient")


def test_events_tell_the_story(journey: Journey) -> None:
    journey.apply(job("told"))
    journey.wait_for_success("told")

    def reasons() -> set[str]:
        events = journey.items("events")
        return {e["reason"] for e in events if e["involvedObject"]["name"] == "told"}

    assert journey.wait("the end to be told", lambda: "Succeeded" in reasons())


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


def test_out_of_memory_is_tried_again_with_half_the_micro_batch(journey: Journey) -> None:
    journey.apply(job("greedy", workers={"resources": {"limits": {"memory": "128Mi"}}}))
    stalled = condition(journey.wait_for_end("greedy"), "Stalled")
    assert stalled["reason"] == "OutOfMemory"
    assert "memory" in stalled["message"]
    attempts = journey.attempts("greedy")
    assert [a["microBatchSize"] for a in attempts] == [2, 1]
    assert {a["reason"] for a in attempts} == {"OutOfMemory"}


def test_a_restarted_operator_goes_on_where_it_was(journey: Journey) -> None:
    journey.apply(job("survivor", training={"maxSteps": 60}))
    journey.wait_for_training("survivor")
    selector = "app.kubernetes.io/name=finetune-operator"
    before = {pod["metadata"]["uid"] for pod in journey.items("pods", selector)}
    journey.kubectl("delete", "pod", f"--selector={selector}", "--grace-period=0", "--force")
    done = journey.wait_for_success("survivor")
    assert {pod["metadata"]["uid"] for pod in journey.items("pods", selector)} != before
    assert [a["state"] for a in done["status"]["attempts"]] == ["Succeeded"]


def test_the_same_job_made_again_finds_its_adapter_instead_of_training(journey: Journey) -> None:
    journey.apply(job("again", training={"maxSteps": 6}))
    first = journey.wait_for_success("again")["status"]["artifact"]
    _delete(journey, "again")
    journey.apply(job("again", training={"maxSteps": 6}))
    second = journey.wait_for_success("again")["status"]["artifact"]
    assert (second["uri"], second["digest"]) == (first["uri"], first["digest"])

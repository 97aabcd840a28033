"""From kubectl apply to a verified adapter, and what of its ways astray takes real pods to see.

How each attempt ends and what follows is the matter of tests/golden, tests/faults and tests/kube.
"""

import base64
import contextlib
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from finetune_local.demo_bucket import write_secret
from finetune_trainer.store.artifacts import open_artifact
from support.cluster.journey import (
    NAMESPACE,
    OPERATOR,
    Journey,
    Json,
    check_killed,
    condition,
    job,
    resumable,
)

CANARY = "canary-7f3a91c2"
KINDS = "pytorchjobs,pods,configmaps,leases,roles,rolebindings,serviceaccounts,networkpolicies"
VISIBLE = f"{KINDS},finetunejobs,events,deployments"


def _children(journey: Journey, name: str) -> list[str]:
    return [
        f"{item['kind']}/{item['metadata']['name']}"
        for item in journey.items(KINDS, f"finetune.dev/job={name}")
    ]


def _delete(journey: Journey, name: str) -> None:
    journey.kubectl("delete", "finetunejob", name)
    journey.wait(f"nothing to be left of {name}", lambda: not _children(journey, name))


@dataclass(frozen=True)
class Happy:
    """A job that has succeeded, and what processes showed of themselves while its pods ran."""

    body: Json
    arguments: str
    environment: str


@pytest.fixture(scope="module")
def happy(journey: Journey) -> Happy:
    keys = {**journey.secret_keys, "HF_TOKEN": CANARY}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "canary"}}
    journey.apply({**secret, "stringData": keys}, resumable("happy", secret="canary"))

    def running() -> bool:
        pods = journey.items("pods", "finetune.dev/job=happy")
        return [pod["status"].get("phase") for pod in pods] == ["Running", "Running"]

    journey.wait("both pods to run", running)
    arguments, environment = _processes("cmdline"), _processes("environ")
    return Happy(journey.wait_for_success("happy"), arguments, environment)


def _processes(field: str) -> str:
    """Return `cmdline` or `environ` of every process, the tests' own left out."""
    texts = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if b"pytest" not in command and b"weed" not in command:
                texts.append((entry / field).read_bytes())
    return b"\n".join(texts).decode(errors="replace")


def test_apply_ends_in_a_verified_adapter(journey: Journey, happy: Happy, tmp_path: Path) -> None:
    done = happy.body
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


def test_the_operator_may_ask_whether_a_pod_still_writes_its_log(
    journey: Journey, happy: Happy
) -> None:
    account = OPERATOR.partition("/")[2]
    token = journey.kubectl("create", "token", account, f"--namespace={NAMESPACE}").strip()

    def logged(seconds: int) -> str:
        pod = "/api/v1/namespaces/default/pods/happy-a1-master-0"
        query = f"container=pytorch&sinceSeconds={seconds}&limitBytes=1"
        return journey.kubectl("get", "--raw", f"{pod}/log?{query}", f"--token={token}")

    refused = journey.kubectl("get", "secrets", f"--token={token}", check=False)
    assert "forbidden" in refused, "it asks as the operator"
    assert len(logged(3600)) == 1
    journey.wait("what ended to be quiet", lambda: logged(1) == "")


def test_a_killed_pod_goes_on_as_if_nothing_had_happened(journey: Journey, happy: Happy) -> None:
    check_killed(
        journey, "killed", Random(0), journey.adapter_digest(happy.body["metadata"]["name"])
    )


def test_a_bad_spec_is_refused_by_field(journey: Journey) -> None:
    bad = job("bad", training={"epochs": 1})
    with pytest.raises(AssertionError, match=r"spec\.training\.maxSteps.*not both"):
        journey.apply(bad)


def test_no_secret_value_is_seen_anywhere(journey: Journey, happy: Happy) -> None:
    """It is in the Secret and in the trainer's mounted file."""
    assert "finetune_trainer" in happy.arguments, "the trainer was looked at"
    places = {
        "arguments": happy.arguments,
        "environment": happy.environment,
        "objects": journey.kubectl("get", VISIBLE, "--all-namespaces", "--output=yaml"),
        "operator log": journey.kubectl(
            "logs", "deployment/operator-finetune-operator", "--namespace=finetune-system"
        ),
        "training log": journey.kubectl("logs", "happy-a1-master-0"),
    }
    assert "happy-a1" in places["objects"]
    for value in (CANARY, journey.secret_keys["AWS_SECRET_ACCESS_KEY"]):
        for form in (value, base64.b64encode(value.encode()).decode()):
            assert [name for name, text in places.items() if form in text] == []


@pytest.mark.parametrize(
    ("name", "spec", "reason", "says"),
    [
        (
            "no-image",
            {"workers": {"image": "ghcr.io/nobody/nothing:1"}},
            "ImageUnavailable",
            "workers.image",
        ),
        (
            "no-gpu",
            {"workers": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
            "Unschedulable",
            "nvidia.com/gpu",
        ),
        ("no-secret", {"secret": "missing"}, "SecretNotFound", "create the Secret"),
    ],
)
def test_what_keeps_pods_from_starting_is_named(
    journey: Journey, name: str, spec: Json, reason: str, says: str
) -> None:
    # The worker's init container does not listen to SIGTERM.
    policy = {"terminationGracePeriodSeconds": 10}
    journey.apply(job(name, runPolicy=policy, **spec))
    waiting = journey.wait_for_reason(name, reason)
    assert says in condition(waiting, "Reconciling")["message"]
    _delete(journey, name)

"""The value of a Secret is in the Secret and in the trainer's mounted file, and nowhere else."""

import base64
import contextlib
from pathlib import Path

from support.cluster.journey import Journey, job

CANARY = "canary-7f3a91c2"
VISIBLE = (
    "finetunejobs,pytorchjobs,pods,configmaps,leases,events,roles,rolebindings,serviceaccounts,"
    "networkpolicies,deployments"
)


def _processes(field: str) -> str:
    """Return `cmdline` or `environ` of every process, the tests' own left out."""
    texts = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if b"pytest" not in command and b"weed" not in command:
                texts.append((entry / field).read_bytes())
    return b"\n".join(texts).decode(errors="replace")


def test_no_secret_value_is_seen_anywhere(journey: Journey) -> None:
    keys = {**journey.secret_keys, "HF_TOKEN": CANARY}
    journey.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "canary"},
            "stringData": keys,
        },
        job("canary", secret="canary", training={"maxSteps": 40}),
    )
    pods = "finetune.dev/job=canary"

    def running() -> bool:
        phases = [p["status"].get("phase") for p in journey.items("pods", pods)]
        return phases == ["Running", "Running"]

    journey.wait("both pods to run", running)
    commands, environments = _processes("cmdline"), _processes("environ")
    assert "finetune_trainer" in commands, "the trainer was looked at"
    journey.wait_for_success("canary")
    places = {
        "arguments": commands,
        "environment": environments,
        "objects": journey.kubectl("get", VISIBLE, "--output=yaml"),
        "operator log": journey.kubectl("logs", "deployment/operator-finetune-operator"),
        "training log": journey.kubectl("logs", "canary-a1-master-0"),
    }
    assert "canary-a1" in places["objects"]
    for value in (CANARY, journey.secret_keys["AWS_SECRET_ACCESS_KEY"]):
        for form in (value, base64.b64encode(value.encode()).decode()):
            assert [name for name, text in places.items() if form in text] == []

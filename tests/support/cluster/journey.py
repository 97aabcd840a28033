"""What the journeys on the embedded cluster are told with: apply, wait, look."""

import contextlib
import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import obstore
import psutil
import yaml
from obstore.store import S3Store

Json = dict[str, Any]

TIMEOUT_SECONDS = 180
STEPS = 100  # of a resumable job
OPERATOR, NAMESPACE = "deployment/operator-finetune-operator", "finetune-system"


@dataclass(frozen=True)
class Journey:
    """A cluster with the operator installed, seen through the real kubectl."""

    kubectl_path: Path
    kubeconfig: Path
    directory: Path  # of the embedded cluster
    store: S3Store
    secret_keys: dict[str, str]

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *objects: Json) -> None:
        self.kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str) -> Json:
        return json.loads(self.kubectl("get", kind, name, "--output=json"))

    def items(self, kind: str, selector: str = "") -> list[Json]:
        text = self.kubectl("get", kind, f"--selector={selector}", "--output=json")
        return json.loads(text)["items"]

    def wait(self, what: str, look: Callable[[], Any]) -> Any:
        """Return the first truthy answer of `look`."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if answer := look():
                return answer
            time.sleep(0.3)
        raise AssertionError(f"waited {TIMEOUT_SECONDS} s for {what}\n{self.state()}")

    def state(self) -> str:
        """The last jobs, the pods and events, and the operator's words, for a failure's message."""
        jobs = [json.dumps(item.get("status")) for item in self.items("finetunejobs")[-3:]]
        pods = self.kubectl("get", "pods,leases", "--all-namespaces", check=False)
        events = self.kubectl("get", "events", "--all-namespaces", check=False).splitlines()[-20:]
        log = self.kubectl("logs", OPERATOR, f"--namespace={NAMESPACE}", "--tail=60", check=False)
        return "\n".join([*jobs, pods, *events, log])

    def wait_for_success(self, name: str) -> Json:
        """Return the job once it has succeeded; fails with the cluster's state if it ends else."""
        job = self.wait_for_end(name)
        if condition(job, "Succeeded")["status"] != "True":
            raise AssertionError(f"{name} ended: {json.dumps(job['status'])}\n{self.state()}")
        return job

    def wait_for_end(self, name: str) -> Json:
        """Return the job once Succeeded is True or False."""

        def ended() -> Json | None:
            job = self.get("finetunejob", name)
            return job if condition(job, "Succeeded").get("status") in ("True", "False") else None

        return self.wait(f"{name} to end", ended)

    def wait_for_reason(self, name: str, reason: str) -> Json:
        """Return the job once any condition gives the reason."""

        def given() -> Json | None:
            job = self.get("finetunejob", name)
            found = {c["reason"] for c in job.get("status", {}).get("conditions", [])}
            return job if reason in found else None

        return self.wait(f"{name} to say {reason}", given)

    def wait_for_training(self, name: str, attempt: int = 1, step: int = 1) -> Json:
        """Return the job once its attempt has done so many steps, in Train still."""

        def training() -> Json | None:
            job = self.get("finetunejob", name)
            told = job.get("status", {}).get("progress", {})
            on = told.get("attempt") == attempt and told.get("phase") == "Train"
            return job if on and told.get("step", 0) >= step else None

        return self.wait(f"{name} to train", training)

    def signal_pod(self, name: str, number: signal.Signals) -> None:
        """Send a signal to every process of a pod's trainer, as from outside of it."""
        uid = self.get("pod", name)["metadata"]["uid"]
        pid = (self.directory / f"node/pods/{uid}/containers/pytorch/pid").read_text()
        launcher = psutil.Process(int(pid))
        for process in [*launcher.children(recursive=True), launcher]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def adapter_digest(self, name: str) -> str:
        """Return the sha256 of the published adapter's weights."""
        uri = self.get("finetunejob", name)["status"]["artifact"]["uri"]
        path = uri.removeprefix("s3://journey/") + "/adapter_model.safetensors"
        return hashlib.sha256(bytes(obstore.get(self.store, path).bytes())).hexdigest()

    def check_went_on(self, name: str, uninterrupted: str) -> Json:
        """Wait for the end of what was interrupted; return the status."""
        status = self.wait_for_success(name)["status"]
        last = status["attempts"][-1]
        assert last["state"] == "Succeeded", status
        assert last["resumedStep"] > 0, "it began anew"
        assert last["lastStep"] == STEPS
        assert self.adapter_digest(name) == uninterrupted
        return status

    def suspend(self, name: str, wanted: bool) -> None:
        """Set runPolicy.suspend."""
        patch = json.dumps({"spec": {"runPolicy": {"suspend": wanted}}})
        self.kubectl("patch", "ftj", name, "--type=merge", "--patch", patch)

    def attempts(self, name: str) -> list[Json]:
        return self.get("finetunejob", name).get("status", {}).get("attempts", [])


def condition(job: Json, kind: str) -> Json:
    found = [c for c in job.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def job(name: str, *, data: str = "data/train.jsonl", secret: str = "s3", **spec: Json) -> Json:
    """A job on the tiny model: two workers, a few steps."""
    ref = {"name": secret}
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "s3://journey/models/tiny", "credentialsSecretRef": ref},
            "data": {"train": [{"uri": f"s3://journey/{data}"}], "credentialsSecretRef": ref},
            "output": {"uri": f"s3://journey/adapters/{name}", "credentialsSecretRef": ref},
            "training": {
                "maxSteps": 4,
                "globalBatchSize": 4,
                "microBatchSize": 2,
                "sequenceLength": 128,
                "precision": "FP32",
                **spec.pop("training", {}),
            },
            "workers": {"replicas": 2, **spec.pop("workers", {})},
            **spec,
        },
    }


def resumable(name: str, every: int = 10, **spec: Any) -> Json:
    """A job whose adapter is known to the last bit, whatever happens to it."""
    return job(
        name,
        training={"maxSteps": STEPS},
        lora={"dropout": "0.1"},
        checkpoint={"everySteps": every},
        **spec,
    )


def check_killed(journey: Journey, name: str, chance: Random, uninterrupted: str) -> None:
    """Kill a pod of a resumable job at a random second, and see it go on."""
    journey.apply(resumable(name))
    journey.wait_for_training(name, step=10)
    time.sleep(chance.uniform(0, 2))
    victim = chance.choice(["master", "worker"])
    journey.signal_pod(f"{name}-a1-{victim}-0", signal.SIGKILL)
    first, *_, last = journey.check_went_on(name, uninterrupted)["attempts"]
    assert first["state"] == "Failed"
    assert first["lostSteps"] == first["lastStep"] - last["resumedStep"]

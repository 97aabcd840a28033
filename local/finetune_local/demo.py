"""The demo's actions on an embedded cluster; the command line tells the story around them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_api.status import FineTuneJobStatus
from finetune_local import binaries, demo_data
from finetune_local.accuracy import Accuracy, measure
from finetune_local.cluster import ClusterInfo
from finetune_local.demo_bucket import write_secret
from finetune_operator.job.stored import finished
from finetune_trainer.store.artifacts import open_artifact

RELEASE = "finetune-operator"
NAMESPACE = "finetune-system"
JOB = "sums"
_POLL_SECONDS = 1.0


class CommandFailed(Exception):
    """A program ended with an error; the message holds the command and what it printed."""


@dataclass(frozen=True)
class Shell:
    """Runs the real kubectl and helm against one cluster."""

    kubeconfig: Path

    def run(self, program: str, *arguments: str) -> str:
        """Return what the program printed. Raises CommandFailed."""
        path = binaries.kubectl() if program == "kubectl" else binaries.helm()
        done = subprocess.run(
            [str(path), *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(f"{program} {' '.join(arguments)}\n{done.stderr.strip()}")
        return done.stdout


def install_command(chart: Path) -> list[str]:
    """Return the helm command that installs the operator beside the namespace of the demo's job,
    reporting often enough to watch."""
    quick = ["replicas=1", "operator.heartbeatSeconds=2", "operator.progressSeconds=2"]
    sets = [part for option in ["watchNamespaces={default}", *quick] for part in ("--set", option)]
    where = ["--namespace", NAMESPACE, "--create-namespace"]
    return ["helm", "install", RELEASE, str(chart), *where, *sets, "--wait", "--timeout=2m"]


def secret_file(cluster: ClusterInfo) -> Path:
    """Write the demo's Secret as a manifest that only the user can read, and return its path."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": demo_data.SECRET_NAME},
        "stringData": cluster.s3.secret_keys(),
    }
    path = cluster.directory / "s3" / "demo-secret.yaml"  # goes when the cluster goes
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(manifest))
    return path


def follow(shell: Shell, timeout_seconds: float) -> Iterator[FineTuneJobStatus]:
    """Yield the job's status whenever it changed, until it has succeeded or failed.

    Raises TimeoutError.
    """
    deadline = time.monotonic() + timeout_seconds
    seen: dict[str, Any] = {}
    while time.monotonic() < deadline:
        body = json.loads(shell.run("kubectl", "get", "finetunejob", JOB, "--output=json"))
        status = body.get("status", {})
        if status and status != seen:
            seen = status
            parsed = FineTuneJobStatus.model_validate(status)
            yield parsed
            if finished(parsed):
                return
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"the job did not finish within {timeout_seconds:.0f} s")


def held_out_accuracy(cluster: ClusterInfo, artifact_uri: str) -> Accuracy:
    """Load the published adapter back from S3, its manifest first, and measure it."""
    _, held_out = demo_data.train_and_held_out()
    with tempfile.TemporaryDirectory(prefix="finetune-demo-") as work:
        credentials = Path(work) / "secret"
        write_secret(credentials, cluster.s3.secret_keys())
        adapter = open_artifact(artifact_uri, str(credentials), Path(work) / "adapter")
        return measure(demo_data.model_directory(), adapter, held_out)

"""The operator as its own process, with the chart's permissions, and a cluster's other actors.

training-operator and kubelet are played by hand, one move at a time, so that a test decides what
pods do and when.
"""

from __future__ import annotations

import copy
import json
import signal
import subprocess
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_contract.progress import ANNOTATION
from support.cluster.service_account import service_account
from support.containers.rendered import Container, start
from support.operator.charts import quick
from support.services.loopback import free_port

Json = Any
GROUPS = {
    "finetunejobs": "/apis/finetune.dev/v1alpha1",
    "pytorchjobs": "/apis/kubeflow.org/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
}
CHILD_KINDS = [
    "pytorchjobs",
    "pods",
    "configmaps",
    "serviceaccounts",
    "leases",
    "roles",
    "rolebindings",
    "networkpolicies",
]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Bench:
    """One namespace of a server, the operator on it, and hands to move the rest."""

    api: Any
    namespace: str
    eventually: Any
    directory: Path
    kubeconfig: Path  # of a user who may do anything
    own_kubeconfig: Path  # of the operator
    operator: Container | None = None
    logs: list[Path] = field(default_factory=list)

    # -- the operator ----------------------------------------------------------------------------

    def another(self, directory: Path) -> Bench:
        """Return hands for another operator with the same rights."""
        directory.mkdir()
        return replace(self, directory=directory, operator=None, logs=[])

    def elsewhere(self, namespace: str) -> Bench:
        """Return hands for another namespace of the same operator."""
        return replace(self, namespace=namespace, operator=None)

    async def token(self, account: str) -> str:
        path = self.path("serviceaccounts", account, "token")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = await self.api.post(path, request)
        assert answer.status == 201, answer.body
        return str(answer.body["status"]["token"])

    def start(self, **values: Any) -> None:
        """Start the operator as the chart's pod does."""
        log = self.directory / f"operator-{len(self.logs)}.log"
        self.logs.append(log)
        self.port = free_port()
        (deployment,) = quick(self.namespace, "deployment", **values)
        deployment["spec"]["template"]["metadata"]["namespace"] = self.namespace
        access, server = service_account(self.own_kubeconfig, self.directory)
        with log.open("wb") as file:
            self.operator = start(
                deployment["spec"]["template"],
                "operator",
                self.directory / "pod",
                log=file,
                mounts=(access,),
                environment={**server, "FINETUNE_BIND_PORT": str(self.port)},
            )

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int | None:
        if self.operator is None:
            return None
        process = self.operator.process
        if process.poll() is None:
            self.operator.first.send_signal(sign)
        try:
            return process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            self.operator = None

    def log(self) -> str:
        return "".join(path.read_text() for path in self.logs)

    # -- the API ---------------------------------------------------------------------------------

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        base = f"{GROUPS.get(plural, '/api/v1')}/namespaces/{self.namespace}/{plural}"
        return "/".join(part for part in (base, name, sub) if part)

    async def get(self, plural: str, name: str) -> Json | None:
        answer = await self.api.get(self.path(plural, name))
        return answer.body if answer.status == 200 else None

    async def items(self, plural: str) -> list[Json]:
        return list((await self.api.get(self.path(plural))).body["items"])

    async def until(self, plural: str, name: str, holds: Any, what: str) -> Json:
        """Return the object once `holds(object)`; the operator's log tells why it never came."""

        async def found() -> Json | None:
            body = await self.get(plural, name)
            return body if body is not None and holds(body) else None

        try:
            return await self.eventually(found, what, 30)
        except AssertionError as error:
            state = json.dumps(await self.get("finetunejobs", "bot"), indent=1)
            raise AssertionError(f"{error}\n{state}\n{self.log()[-4000:]}") from None

    async def until_reason(self, reason: str, job: str = "bot") -> Json:
        return await self.until(
            "finetunejobs",
            job,
            lambda body: condition(body, "Succeeded").get("reason") == reason,
            f"{job} to be {reason}",
        )

    async def until_gone(self, plural: str, name: str) -> None:
        async def gone() -> bool:
            return await self.get(plural, name) is None

        await self.eventually(gone, f"{plural}/{name} to go", 45)

    async def apply(self, **spec: Json) -> Json:
        body = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": "bot"},
            "spec": {
                "model": {"uri": "hf://o/m"},
                "data": {
                    "train": [{"uri": "s3://d/a.jsonl"}],
                    "credentialsSecretRef": {"name": "s3"},
                },
                "output": {"uri": "s3://adapters/bot"},
                "workers": {"replicas": 2},
                **spec,
            },
        }
        made = await self.api.post(self.path("finetunejobs"), body)
        assert made.status == 201, made.body
        return made.body

    # -- training-operator, kubelet, trainer -----------------------------------------------------

    async def pods_appear(self, attempt: int) -> list[str]:
        """Make the pods of an attempt's PyTorchJob, pending on their nodes."""
        workload = await self.until(
            "pytorchjobs", f"bot-a{attempt}", lambda _: True, f"PyTorchJob of attempt {attempt}"
        )
        names = []
        for role, replica in workload["spec"]["pytorchReplicaSpecs"].items():
            for index in range(replica["replicas"]):
                name = f"{workload['metadata']['name']}-{role.lower()}-{index}"
                body = copy.deepcopy(replica["template"])
                body["metadata"] |= {"name": name, "ownerReferences": [_owner(workload)]}
                body["spec"]["restartPolicy"] = "Never"
                made = await self.api.post(self.path("pods"), body)
                assert made.status == 201, made.body
                names.append(name)
        return names

    async def pod_state(self, name: str, phase: str, state: Json) -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
        container = {
            "name": "pytorch",
            "image": "registry.example/trainer:1",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        status = {"phase": phase, "conditions": [scheduled], "containerStatuses": [container]}
        answer = await self.api.merge(self.path("pods", name, "status"), {"status": status})
        assert answer.status == 200, answer.body

    async def pods_run(self, names: list[str]) -> None:
        for name in names:
            await self.pod_state(name, "Running", {"running": {"startedAt": now()}})

    async def pod_ends(
        self, name: str, code: int = 0, reason: str = "Error", result: Json = None
    ) -> None:
        end = {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}
        if result is not None:
            end["message"] = "a line of the log\n" + json.dumps(result)
        phase = "Failed" if code else "Succeeded"
        await self.pod_state(name, phase, {"terminated": end})

    async def workload_ends(self, attempt: int, kind: str) -> None:
        status = {"conditions": [{"type": kind, "status": "True"}]}
        path = self.path("pytorchjobs", f"bot-a{attempt}", "status")
        answer = await self.api.merge(path, {"status": status})
        # an operator that saw the pods' ends may have deleted it by then
        assert answer.status in (200, 404), answer.body

    async def succeed(self, attempt: int) -> Json:
        """End all pods well; rank 0 reports the artifact."""
        uid = (await self.get("finetunejobs", "bot"))["metadata"]["uid"]
        artifact = {
            "uri": f"s3://adapters/bot/runs/{uid}/a{attempt}/artifact",
            "digest": "sha256:" + "1" * 64,
            "bytes": 10,
        }
        result = {"attempt": attempt, "outcome": "Succeeded", "reason": "Succeeded"}
        await self.pod_ends(f"bot-a{attempt}-worker-0", 0, "Completed", result)
        await self.pod_ends(
            f"bot-a{attempt}-master-0", 0, "Completed", {**result, "artifact": artifact}
        )
        return artifact

    async def heartbeat(self, api: Any, attempt: int, **progress: Json) -> Any:
        """Renew the Lease as the trainer does; `api` decides whose rights are used."""
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        annotations = {ANNOTATION: json.dumps(progress)}
        patch = {"metadata": {"annotations": annotations}, "spec": {"renewTime": renewed}}
        return await api.merge(self.path("leases", f"bot-a{attempt}"), patch)


def condition(body: Json, kind: str) -> Json:
    conditions = body.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def _owner(workload: Json) -> Json:
    return {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "name": workload["metadata"]["name"],
        "uid": workload["metadata"]["uid"],
        "controller": True,
    }

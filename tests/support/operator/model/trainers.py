"""Trainers in the pods of a World: they claim the output, do steps, save, report and end."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from finetune_contract.artifact import artifact_path
from finetune_contract.checkpoint import checkpoint_path
from finetune_contract.progress import ANNOTATION
from finetune_operator.job.names import UID_LABEL
from support.operator.backends import ONE_OBJECT, Played
from support.operator.model.store import RFC3339, Store, copied
from support.storage.publications import RUN

Json = Any
_OF_AN_ATTEMPT = re.compile(r"(.+?-a(\d+))(-.+)?")


@dataclass
class Trainers(Store):
    """What the trainers did is the truth, whatever of it the operator is told."""

    backend: Played = ONE_OBJECT
    unreachable: set[str] = field(default_factory=set)  # pods on nodes that do not answer
    ahead: timedelta = timedelta()  # how far the nodes' clocks are before the API server's
    claim: tuple[int, str] | None = None  # attempt and run that may commit
    committed: list[int] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)  # done by the present rank 0, by attempt
    most_steps: dict[int, int] = field(default_factory=dict)  # that any rank 0 of it did
    resumed: dict[int, int] = field(default_factory=dict)
    saved: Json = None  # the newest complete checkpoint
    tried: bool = False  # a pod found the rewards good
    sidecars: bool = False  # what else was put into the pods runs on until they are deleted

    def leads(self, pod: Json) -> bool:
        """Tell whether a pod is an attempt's rank 0."""
        return self.backend.node_rank(pod) == 0

    def begin(self, pod: Json) -> None:
        """Let a pod's trainer start; that of rank 0 claims the output and resumes."""
        if self.leads(pod):
            attempt = attempt_of(pod)
            self.claim = (attempt, pod["metadata"]["uid"])
            self.resumed[attempt] = self.saved["step"] if self.saved else 0
            self._reach(attempt, self.resumed[attempt])

    def train(self, name: str, steps: int, save: bool) -> None:
        """Do steps on a running rank 0, save perhaps, and report into the Lease if it is there."""
        pod = self.find("Pod", name)
        if pod is None or not trains(pod) or not self.leads(pod):
            return
        attempt = attempt_of(pod)
        self._reach(attempt, self.steps[attempt] + steps)
        if save:
            self._save(pod)
        if name not in self.unreachable:
            self._report(pod, self.steps[attempt])

    def report_again(self, name: str, steps: int) -> None:
        """Let an earlier start of a running rank 0, which nobody ended, report what it did."""
        pod = self.find("Pod", name)
        if pod is not None and trains(pod) and self.leads(pod):
            self._report(pod, max(0, self.steps[attempt_of(pod)] - steps))

    def _report(self, pod: Json, step: int) -> None:
        """Write Progress into the Lease, if it is there and the job's."""
        lease = self.find("Lease", attempt_name(pod))
        if lease is None:
            return
        body = copied(lease)
        told = json.dumps(self._progress(attempt_of(pod), step))
        body["metadata"].setdefault("annotations", {})[ANNOTATION] = told
        body["spec"] = {"renewTime": self._node_stamp()}
        self.store(body)

    def _node_stamp(self) -> str:
        return (self.now + self.ahead).strftime(RFC3339)

    def _reach(self, attempt: int, step: int) -> None:
        self.steps[attempt] = step
        self.most_steps[attempt] = max(step, self.most_steps.get(attempt, 0))

    def _save(self, pod: Json) -> None:
        attempt = attempt_of(pod)
        step = self.steps[attempt]
        if self.saved is None or self.saved["step"] < step:
            path = checkpoint_path(job_uid(pod), attempt, RUN, step)
            uri = f"s3://adapters/bot/{path}"
            self.saved = {"attempt": attempt, "step": step, "uri": uri}

    def _progress(self, attempt: int, step: int) -> Json:
        told = {"phase": "Train", "done": step, "step": step}
        if self.resumed[attempt]:
            told["resumedStep"] = self.resumed[attempt]
        return told | ({"checkpoint": self.saved} if self.saved else {})

    def end(self, name: str, reason: str) -> None:
        """End a running pod with the trainer's Result, or by a kill that leaves none."""
        pod = self.find("Pod", name)
        if pod is None or not trains(pod) or name in self.unreachable:
            return
        body = copied(pod)
        terminated = self._terminated(pod, reason)
        phase = "Succeeded" if terminated["exitCode"] == 0 else "Failed"
        body["status"]["phase"] = "Running" if self.sidecars else phase
        body["status"]["containerStatuses"][0]["state"] = {"terminated": terminated}
        self.store(body)

    def _terminated(self, pod: Json, reason: str) -> Json:
        attempt = 1 if tries_rewards(pod) else attempt_of(pod)
        code = {"Killed": 137, "Succeeded": 0}.get(reason, 1)
        end = {"exitCode": code, "finishedAt": self._node_stamp(), "reason": "Error"}
        if reason == "OOMKilled":
            return {**end, "exitCode": 137, "reason": "OOMKilled"}
        if reason == "Killed":
            return end
        result = {"attempt": attempt, "outcome": "Failed", "reason": reason, "message": "told"}
        if self.leads(pod):
            if reason == "Interrupted":
                self._save(pod)
            result["step"] = self.steps[attempt] + (reason not in ("Interrupted", "Succeeded"))
            result |= {"checkpoint": self.saved} if self.saved else {}
        if reason == "Succeeded":
            result["outcome"] = "Succeeded"
            self.tried = self.tried or tries_rewards(pod)
            if self.leads(pod):
                if self.claim != (attempt, pod["metadata"]["uid"]):
                    result |= {"outcome": "Failed", "reason": "Superseded"}
                    end["exitCode"] = 17
                else:
                    self.committed.append(attempt)
                    result["artifact"] = artifact(job_uid(pod), attempt)
        return {**end, "message": json.dumps(result)}


def trains(pod: Json) -> bool:
    """Tell whether a pod's trainer runs."""
    return bool(pod["status"]["phase"] == "Running" and not has_ended(pod))


def has_ended(pod: Json) -> bool:
    """Tell whether a pod's trainer has ended."""
    containers = pod["status"].get("containerStatuses", [])
    return any("terminated" in container["state"] for container in containers)


def tries_rewards(pod: Json) -> bool:
    return bool(pod["metadata"]["name"].endswith("-rewards"))


def job_uid(pod: Json) -> str:
    """Return the uid of the job that a pod's trainer was told of."""
    return str(pod["metadata"]["labels"][UID_LABEL])


def attempt_of(body: Json) -> int:
    """Return the attempt of an object that belongs to one."""
    return int(_parts(body)[2])


def attempt_name(body: Json) -> str:
    """Return the name of the objects of the attempt that a pod belongs to."""
    return _parts(body)[1]


def _parts(body: Json) -> re.Match[str]:
    found = _OF_AN_ATTEMPT.fullmatch(body["metadata"]["name"])
    assert found is not None, "it belongs to no attempt"
    return found


def artifact(uid: str, attempt: int) -> Json:
    path = f"s3://adapters/bot/{artifact_path(uid, attempt, RUN)}"
    return {"uri": path, "digest": f"sha256:{attempt:064x}", "bytes": 1}

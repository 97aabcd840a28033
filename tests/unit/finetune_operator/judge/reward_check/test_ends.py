"""What a cluster does to the pod that tries the rewards, and what the job makes of it."""

import json
from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.status import FineTuneJobStatus, RewardCheckStatus
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Course, Decision
from finetune_operator.observe.observe import observe
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.reward_trials import digest, tried_by
from support.operator.values import at, job, stamp

Json = Any
SETTINGS = Settings(trainer_image="trainer:1", start_timeout_seconds=60)
CODE = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}
DATA = {
    "train": [{"uri": "s3://data/prompts.jsonl"}],
    "credentialsSecretRef": {"name": "data-keys"},
}
PLACED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(1)}
WAITS = {"waiting": {"reason": "PodInitializing"}}
COPIED = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def of() -> FineTuneJob:
    return job(data=DATA, method={"type": "GRPO", "grpo": {"rewards": [CODE]}})


def died(code: int, reason: str = "Error", told: str | None = None) -> Json:
    """The end of a container, perhaps with the Result of a failure."""
    ended = {"exitCode": code, "reason": reason, "finishedAt": stamp(9)}
    result = {"attempt": 1, "outcome": "Failed", "reason": told, "message": "told"}
    return {"terminated": {**ended, "message": json.dumps(result)} if told else ended}


def status(phase: str, rows: Json = COPIED, rewards: Json = WAITS, **fields: Json) -> Json:
    return {
        "phase": phase,
        "conditions": [PLACED],
        "initContainerStatuses": [{"name": "rows", "image": "trainer:1", "state": rows}],
        "containerStatuses": [{"name": "rewards", "image": "trainer:1", "state": rewards}],
        **fields,
    }


def decided(of_pod: Json, seconds: float, warning: str | None = None, **metadata: Json) -> Decision:
    body = {**tried_by(of()), "status": of_pod}
    body["metadata"] = {**body["metadata"], "uid": "check", **metadata}
    known = RewardCheckStatus.model_validate(
        {"state": "Running", "plan": digest(of()), "start_time": stamp(0), "pod_uid": "check"}
    )
    tried = of().model_copy(update={"status": FineTuneJobStatus(reward_check=known)})
    seen = observe(tried, [body], [], BACKEND)
    assert seen.checks[0].uid == "check"
    if warning:
        seen = type(seen)(seen.children, checks=seen.checks, warnings={"check": warning})
    return decide(tried, seen, at(seconds), SETTINGS, BACKEND, digest(of()))


ENDS: dict[str, tuple[Json, Course, Reason, str]] = {
    "evicted": (
        status("Failed", rewards=died(137), reason="Evicted", message="node was low on memory"),
        Course.PROGRESSING,
        Reason.RETRYING,
        "bot-rewards: node was low on memory",
    ),
    "refused by its node": (
        {"phase": "Failed", "reason": "OutOfcpu", "message": "no room", "conditions": [PLACED]},
        Course.PROGRESSING,
        Reason.RETRYING,
        "bot-rewards was refused by its node: no room",
    ),
    "killed": (
        status("Failed", rewards=died(137)),
        Course.PROGRESSING,
        Reason.RETRYING,
        "ended with code 137 and no result",
    ),
    "told to stop": (
        status("Failed", rewards=died(143)),
        Course.PROGRESSING,
        Reason.RETRYING,
        "ended with code 143",
    ),
    "ended without a word": (
        status("Succeeded", rewards=COPIED),
        Course.PROGRESSING,
        Reason.RETRYING,
        "without reporting",
    ),
    "out of memory": (
        status("Failed", rewards=died(137, "OOMKilled")),
        Course.FAILED,
        Reason.REWARD_INVALID,
        "bot-rewards was killed at its memory limit: raise python.memory of the rewards",
    ),
    "out of memory over the rows": (
        status("Failed", rows=died(137, "OOMKilled")),
        Course.PROGRESSING,
        Reason.RETRYING,
        "bot-rewards was killed at its memory limit while the rows were read",
    ),
    "no rows": (
        status("Failed", rows=died(11, told="DataNotFound")),
        Course.FAILED,
        Reason.DATA_NOT_FOUND,
        "bot-rewards: told",
    ),
    "rows refused": (
        status("Failed", rows=died(15, told="AccessDenied")),
        Course.FAILED,
        Reason.ACCESS_DENIED,
        "bot-rewards: told",
    ),
    "store away": (
        status("Failed", rows=died(21, told="StorageUnavailable")),
        Course.PROGRESSING,
        Reason.RETRYING,
        "bot-rewards: told",
    ),
    "not confined": (
        status("Failed", rewards=died(34, told="SandboxUnavailable")),
        Course.FAILED,
        Reason.SANDBOX_UNAVAILABLE,
        "bot-rewards: told",
    ),
    "an image of another version": (
        status("Failed", rewards=died(2)),
        Course.PROGRESSING,
        Reason.RETRYING,
        "ended with code 2 and no result",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_each_end_is_told_and_followed_up(case: str) -> None:
    pod, course, reason, words = ENDS[case]
    decision = decided(pod, 30)
    assert (decision.verdict.course, decision.verdict.reason) == (course, reason)
    assert words in decision.verdict.message
    assert decision.reward_check is not None
    assert decision.reward_check.end_time == stamp(30)
    assert decision.attempts == ()
    if course is Course.PROGRESSING:
        assert decision.reward_check.failures == 1
        assert decision.after is not None


def stuck(reason: str, message: str = "") -> Json:
    return status("Pending", rows={"waiting": {"reason": reason, "message": message}})


OBSTACLES: dict[str, tuple[Json, str | None, Reason, str]] = {
    "image": (
        stuck("ImagePullBackOff"),
        None,
        Reason.IMAGE_UNAVAILABLE,
        "bot-rewards: image trainer:1",
    ),
    "Secret": (
        stuck("PodInitializing"),
        'MountVolume.SetUp failed for volume "data-credentials" : secret "data-keys" not found',
        Reason.SECRET_NOT_FOUND,
        'Secret "data-keys", named by spec.data.credentialsSecretRef, does not exist',
    ),
    "ConfigMap": (
        stuck("PodInitializing"),
        'MountVolume.SetUp failed for volume "reward-mine-source" : configmap "code" not found',
        Reason.VOLUME_UNAVAILABLE,
        'ConfigMap "code", named by spec.method.grpo.rewards[mine].python.configMap, does not',
    ),
    "key of the ConfigMap": (
        stuck("PodInitializing"),
        "MountVolume.SetUp failed : configmap references non-existent config key: score.py",
        Reason.VOLUME_UNAVAILABLE,
        "references non-existent config key: score.py",
    ),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_each_obstacle_is_told_and_ends_the_job_when_its_time_is_over(case: str) -> None:
    pod, warning, reason, words = OBSTACLES[case]
    waits = decided(pod, 60, warning)
    assert (waits.verdict.course, waits.verdict.reason) == (Course.PROGRESSING, reason)
    assert words in waits.verdict.message
    over = decided(pod, 61, warning)
    assert (over.verdict.course, over.verdict.reason) == (Course.FAILED, Reason.START_TIMEOUT)
    assert words in over.verdict.message
    assert [c.uid for c in over.delete] == ["check"]


def test_a_pod_without_a_node_waits_for_room_and_says_so() -> None:
    full = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    decision = decided({"phase": "Pending", "conditions": [full]}, 86_400)
    assert decision.verdict.course is Course.PROGRESSING
    assert decision.verdict.reason is Reason.UNSCHEDULABLE
    assert "0/3 nodes are available" in decision.verdict.message
    assert decision.after is not None


def test_a_node_that_can_not_start_the_trial_ends_no_job() -> None:
    refused = {"exitCode": 128, "reason": "StartError", "message": "no driver"}
    made = decided(status("Failed", rewards={"terminated": refused}), 9)
    assert (made.verdict.course, made.verdict.reason) == (Course.PROGRESSING, Reason.RETRYING)
    assert made.reward_check is not None
    assert made.reward_check.message == "bot-rewards: no driver"


def test_a_trials_end_names_the_secret_of_its_rows() -> None:
    refused = died(16, told="AccessDenied")
    said = json.loads(refused["terminated"]["message"])
    said["message"] = "refused with the Secret of spec.data.credentialsSecretRef"
    refused["terminated"]["message"] = json.dumps(said)
    decision = decided(status("Failed", rows=refused), 10)
    assert 'spec.data.credentialsSecretRef ("data-keys")' in decision.verdict.message

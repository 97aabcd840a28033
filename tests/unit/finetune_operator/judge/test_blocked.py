"""What keeps a pod from starting gets its reason, and the name of what is missing."""

from typing import Any

import pytest

from finetune_operator.judge.blocked import Blocked, blocked
from finetune_operator.judge.observed import Obstacle
from support.operator.values import job, pod, seen, stamp


def waits(obstacle: Obstacle | None, warning: str | None = None, **spec: Any) -> Blocked | None:
    stuck = pod(0, phase="Pending", running=False, obstacle=obstacle)
    warnings = {stuck.uid: warning} if warning else {}
    return blocked(job(**spec), [pod(1), stuck], seen(warnings=warnings))


CREATING = Obstacle("ContainerCreating", "")


@pytest.mark.parametrize(
    ("obstacle", "warning", "reason", "words"),
    [
        (Obstacle("Unschedulable", "0/3 nodes"), None, "Unschedulable", "0/3 nodes"),
        (Obstacle("SchedulingGated", "gated"), None, "Unschedulable", "gated"),
        (
            Obstacle("Unschedulable", 'persistentvolumeclaim "models" not found'),
            None,
            "VolumeUnavailable",
            'PersistentVolumeClaim "models" does not exist in namespace team',
        ),
        (Obstacle("ErrImagePull", "no such tag"), None, "ImageUnavailable", "no such tag"),
        (Obstacle("ImagePullBackOff", "back-off"), None, "ImageUnavailable", "back-off"),
        (Obstacle("InvalidImageName", "bad name"), None, "ImageUnavailable", "bad name"),
        (
            Obstacle("CreateContainerConfigError", 'configmap "settings" not found'),
            None,
            "VolumeUnavailable",
            'ConfigMap "settings" does not exist',
        ),
        (CREATING, 'secret "s3" not found', "SecretNotFound", 'Secret "s3"'),
        (CREATING, "MountVolume.SetUp failed: timeout", "VolumeUnavailable", "timeout"),
        (CREATING, "AttachVolume.Attach failed", "VolumeUnavailable", "Attach failed"),
        (
            Obstacle("CreateContainerConfigError", "image will run as root"),
            None,
            "ContainerRefused",
            "run as root",
        ),
        (Obstacle("CreateContainerError", "no such device"), None, "ContainerRefused", "device"),
        (Obstacle("RunContainerError", "exec format"), None, "ContainerRefused", "exec format"),
        (CREATING, "Failed to create pod sandbox: no IP", "ContainerRefused", "no IP"),
    ],
)
def test_what_keeps_a_pod_from_starting(
    obstacle: Obstacle, warning: str | None, reason: str, words: str
) -> None:
    found = waits(obstacle, warning)
    assert found is not None
    assert found.reason == reason
    assert words in found.message


def test_a_pod_that_is_merely_slow_is_not_blocked() -> None:
    assert waits(CREATING) is None
    assert waits(None) is None
    assert waits(CREATING, "Readiness probe failed") is None


def test_a_missing_secret_is_named_with_the_fields_that_name_it() -> None:
    ref = {"name": "s3"}
    found = waits(
        CREATING,
        'secret "s3" not found',
        model={"uri": "s3://m/m", "credentialsSecretRef": {"name": "other"}},
        data={"train": [{"uri": "s3://d/a"}], "credentialsSecretRef": ref},
        output={"uri": "s3://o/o", "credentialsSecretRef": ref},
    )
    assert found is not None
    fields = "spec.data.credentialsSecretRef and spec.output.credentialsSecretRef"
    assert found.message == (f'Secret "s3", named by {fields}, does not exist in namespace team')


@pytest.mark.parametrize(
    ("obstacle", "since"),
    [(CREATING, stamp(0)), (Obstacle("Unschedulable", ""), None)],
)
def test_only_a_pod_with_a_node_can_run_out_of_time(obstacle: Obstacle, since: str | None) -> None:
    found = waits(obstacle, "MountVolume failed" if since else None)
    assert found is not None
    assert (found.since is not None) is (since is not None)


def test_finished_and_running_pods_wait_for_nothing() -> None:
    done = pod(0, phase="Failed", running=False, obstacle=Obstacle("ErrImagePull", ""))
    assert blocked(job(), [done, pod(1, obstacle=Obstacle("ErrImagePull", ""))], seen()) is None

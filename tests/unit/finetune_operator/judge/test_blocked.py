"""What keeps a pod from starting gets its reason, and the name of what is missing."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_operator.judge.blocked import Blocked, blocked, unmade
from finetune_operator.observe.observed import Child, Obstacle, Pod, Sign
from support.operator.values import UID, at, attempt, ended, job, pod, seen, stamp


def waits(
    obstacle: Obstacle | None, warning: str | None = None, seconds: float = 29, **spec: Any
) -> Blocked | None:
    """What keeps a pod from starting, this long after it was given a node if it has one."""
    node = None if obstacle and obstacle.reason in NO_NODE else at(0)
    stuck = pod(0, phase="Pending", running=False, obstacle=obstacle, scheduled=node)
    warnings = {stuck.uid: warning} if warning else {}
    return blocked(job(**spec), [pod(1), stuck], seen(warnings=warnings), at(seconds))


NO_NODE = ("Unschedulable", "SchedulingGated", "SchedulerError")
CREATING = Obstacle("ContainerCreating", "")


@pytest.mark.parametrize(
    ("obstacle", "warning", "reason", "words"),
    [
        (Obstacle("Unschedulable", "0/3 nodes"), None, "Unschedulable", "0/3 nodes"),
        (Obstacle("SchedulingGated", "gated"), None, "Unschedulable", "gated"),
        (Obstacle("SchedulerError", "no answer"), None, "Unschedulable", "no answer"),
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
        (CREATING, "Multi-Attach error for volume", "VolumeUnavailable", "Multi-Attach"),
        (CREATING, "Unable to attach or mount volumes: x", "VolumeUnavailable", "volumes: x"),
        (
            Obstacle("CrashLoopBackOff", "back-off restarting container=istio-proxy"),
            None,
            "NotStarting",
            "bot-a1-master-0: CrashLoopBackOff: back-off restarting container=istio-proxy",
        ),
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
    assert waits(CREATING, "Startup probe failed") is None
    assert waits(CREATING, None, 9_999) is None
    assert waits(None, None, 9_999) is None


def test_a_warning_that_nobody_knows_is_shown_after_a_while_and_counts() -> None:
    for obstacle in (CREATING, None):
        found = waits(obstacle, "the moon is full", 30)
        assert found == Blocked(Reason.NOT_STARTING, "bot-a1-master-0: the moon is full", at(0))


def test_what_any_start_has_for_a_moment_keeps_nothing_until_it_lasts() -> None:
    hangs = Obstacle("", "init container vault has not ended", at(20))
    assert waits(hangs, seconds=49) is None
    found = waits(hangs, seconds=50)
    assert found == Blocked(Reason.NOT_STARTING, f"bot-a1-master-0: {hangs.message}", at(20))
    unseen = pod(0, phase="Pending", running=False, scheduled=None, obstacle=hangs)
    assert blocked(job(), [unseen], seen(), at(49)) is None
    found = blocked(job(), [unseen], seen(), at(50))
    assert found == Blocked(Reason.UNSCHEDULABLE, f"bot-a1-master-0: {hangs.message}", None)


@pytest.mark.parametrize(
    ("obstacle", "since"),
    [
        (Obstacle("CrashLoopBackOff", "istio-proxy"), at(0)),
        (Obstacle("", "containers with unready status: [istio-proxy]", at(9)), at(9)),
    ],
)
def test_pods_that_wait_for_rank_0_are_told_what_keeps_it_unready(
    obstacle: Obstacle, since: Any
) -> None:
    """A Service names no pod that is not ready; init-pytorch asks for that name."""
    waits = pod(1, phase="Pending", running=False)
    unready = pod(0, obstacle=obstacle)
    found = blocked(job(), [unready, waits], seen(), at(39))
    assert found is not None
    assert (found.reason, found.since) == (Reason.NOT_STARTING, since)
    assert found.message.startswith("bot-a1-master-0: ")
    assert obstacle.message in found.message
    assert blocked(job(), [unready, pod(1)], seen(), at(39)) is None, "all run"
    assert blocked(job(), [waits, pod(2, obstacle=obstacle)], seen(), at(39)) is None


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
    held = pod(0, phase="Pending", scheduled=None)
    waiting = pod(1, obstacle=Obstacle("ErrImagePull", ""))
    assert blocked(job(), [done, held, waiting], seen(), at(0)) is None


WORKLOAD = Child("PyTorchJob", "bot-a1", "workload", UID, 1, False, workload=True)
REFUSED = {"workload": 'pods "bot-a1-worker-0" is forbidden: exceeded quota'}


def makes(*pods: Any, seconds: float = 60, of: Any = None, **fields: Any) -> Blocked | None:
    observed = seen(*pods, children=(fields.pop("child", WORKLOAD),), **fields)
    return unmade(job(), of or attempt(), list(pods), observed, at(seconds))


def test_pods_that_are_refused_are_told_of_while_others_hold_their_nodes() -> None:
    found = makes(pod(), warnings=REFUSED, seconds=4)
    assert found == Blocked(
        Reason.POD_REFUSED, f"PyTorchJob bot-a1 has 1 of 2 pods: {REFUSED['workload']}", at(0)
    )
    assert makes(pod(), pod(1), warnings=REFUSED) is None
    assert makes(pod(), ended(1, 0), warnings=REFUSED) is None
    assert makes(pod(), of=attempt(pod_uids=["pod-0", "pod-1"]), warnings=REFUSED) is None
    assert makes(pod(), child=replace(WORKLOAD, uid="w", workload=False), warnings=REFUSED) is None


def test_what_pods_find_each_other_by_is_told_of_while_some_wait_for_it() -> None:
    service = {"workload": 'services "bot-a1-master-0" is forbidden: exceeded quota'}
    waits = pod(1, phase="Pending", running=False)
    for of in (attempt(), attempt(pod_uids=["pod-0", "pod-1"])):
        found = makes(pod(), waits, of=of, warnings=service)
        assert found == Blocked(
            Reason.POD_REFUSED, f"PyTorchJob bot-a1 has 2 of 2 pods: {service['workload']}", at(0)
        )
    assert makes(pod(), waits, looked=True) is None, "it is merely slow"


def test_pods_that_are_not_made_and_nobody_says_why() -> None:
    nothing = Blocked(Reason.NOT_STARTING, "PyTorchJob bot-a1 has 0 of 2 pods", at(0))
    assert makes(looked=True, seconds=30) == nothing
    assert makes(looked=True, seconds=29) is None
    assert makes(looked=False, seconds=30) is None, "its Events come first"


def test_a_workload_that_a_queue_holds_may_wait() -> None:
    held = replace(WORKLOAD, held="is suspended")
    found = makes(child=held, warnings=REFUSED, looked=True)
    assert found == Blocked(Reason.QUEUED, "PyTorchJob bot-a1 is suspended", None)


MAKING = pod(0, phase="Pending", running=False, made=False)
PULLING = Sign(False, "Pulling", 'Pulling image "big:1"', at(5))
PULLED = Sign(False, "Pulled", "Successfully pulled", at(2000))
HEARD = "its node makes no container of it and does not say why"


def silent(sign: Sign | None, seconds: float, stuck: Pod = MAKING, **looked: Any) -> Blocked | None:
    signs = {"signs": {stuck.uid: sign}, "looked": True, **looked}
    return blocked(job(), [stuck], seen(**signs), at(seconds))


@pytest.mark.parametrize("obstacle", [None, CREATING])
@pytest.mark.parametrize(
    ("sign", "seconds", "reason", "words", "since"),
    [
        (None, 29, None, "", 0),
        (None, 30, Reason.NOT_STARTING, HEARD, 0),
        (PULLING, 30, Reason.PENDING, 'Pulling image "big:1"', 3600),
        (PULLING, 9_999, Reason.PENDING, 'Pulling image "big:1"', 3600),
        (PULLED, 2029, None, "", 0),
        (PULLED, 2030, Reason.NOT_STARTING, f"{HEARD}; the last Event: {PULLED.message}", 2000),
        (replace(PULLED, time=at(9_999)), 10_100, Reason.NOT_STARTING, HEARD, 3600),
        (PULLED, 1999, Reason.NOT_STARTING, HEARD, 0),
        (replace(PULLED, time=at(-900)), 30, Reason.NOT_STARTING, HEARD, 0),
        (replace(PULLED, time=None), 30, Reason.NOT_STARTING, HEARD, 0),
    ],
)
def test_a_node_that_says_nothing_is_not_waited_for_without_end(
    sign: Sign | None,
    seconds: float,
    reason: Reason | None,
    words: str,
    since: float,
    obstacle: Obstacle | None,
) -> None:
    found = silent(sign, seconds, replace(MAKING, obstacle=obstacle))
    assert (found and found.reason) == reason
    if found is not None:
        assert words in found.message
        assert found.since == at(since)


def test_only_what_was_looked_at_and_is_yet_to_be_made_is_silent() -> None:
    assert silent(None, 99, signs={}) is None
    assert silent(None, 99, replace(MAKING, made=True)) is None
    other = silent(None, 99, warnings={MAKING.uid: "Multi-Attach error"})
    assert (other and other.reason) == Reason.VOLUME_UNAVAILABLE


def test_what_keeps_a_pod_is_told_before_what_takes_its_time() -> None:
    other = replace(MAKING, uid="other", obstacle=Obstacle("ErrImagePull", "no such tag"))
    found = blocked(job(), [MAKING, other], seen(signs={MAKING.uid: PULLING}), at(99))
    assert (found and found.reason) == Reason.IMAGE_UNAVAILABLE

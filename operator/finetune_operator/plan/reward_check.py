"""The pod that tries a job's rewards on a few rows before the first attempt.

It tries what the isolated runner scores. HTTP rewards and reward models need credentials or
weights, which nothing beside the user's code may have. Two containers, so that what holds the
data's credentials never runs that code: the first copies rows, the second, with neither credentials
nor token, scores them. It may run wherever the attempts may, but as it asks for no GPU it may get a
node that they never would: what that node's kernel lacks says nothing of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.job import FineTuneJob
from finetune_contract.recipe import DataSource
from finetune_operator.job.credentials import credentials
from finetune_operator.job.names import ROWS_CONTAINER, Object, child, reward_check_name
from finetune_operator.job.workers import extended_resources
from finetune_operator.plan.container import ENVIRONMENT, container, modest
from finetune_operator.plan.objects import Objects, shared
from finetune_operator.plan.pod import pod_settings
from finetune_operator.plan.reward_runner import (
    REWARDS_FILE,
    REWARDS_PATH,
    SPARED,
    document,
    rewards_document,
    runner,
    runner_volumes,
    source_arguments,
)
from finetune_operator.plan.volumes import (
    VolumeAndMount,
    credentials_directory,
    credentials_mount,
    user_volumes,
    volume,
)

_ROWS_DIRECTORY = "/run/finetune/rows"
_ROWS_PATH = f"{_ROWS_DIRECTORY}/rows.jsonl"
_DOCUMENT = "finetune.dev/rewards"  # annotation, shown to the container as a file
_GRACE_SECONDS = 10


def reward_check(job: FineTuneJob, image: str, pull_secrets: Sequence[str] = ()) -> Objects | None:
    """Return the pod that tries the job's rewards, and what it needs; None for a job without any
    that can be tried."""
    rewards = rewards_document(job)
    if rewards is None:
        return None
    pod = child(
        job,
        "v1",
        "Pod",
        None,
        name=reward_check_name(job.name),
        annotations={**SPARED, _DOCUMENT: rewards},
        spec=_spec(job, image),
    )
    return Objects(shared(job, pull_secrets), (), (pod,))


def _spec(job: FineTuneJob, image: str) -> Object:
    data = credentials(job).get("data")
    secrets = [credentials_mount("data", data.secret)] if data else []
    inputs = [*secrets, *user_volumes(job)]
    some = {"emptyDir": {"sizeLimit": "256Mi"}}
    rows = volume("rows", some, _ROWS_DIRECTORY)
    rows_to_read = volume("rows", some, _ROWS_DIRECTORY, read_only=True)
    tmp = volume("rows-tmp", {"emptyDir": {}}, "/tmp")  # noqa: S108 - a mount point
    annotation = {"fieldPath": f"metadata.annotations['{_DOCUMENT}']"}
    items = [{"path": REWARDS_FILE, "fieldRef": annotation}]
    rewards = document("rewards", {"downwardAPI": {"items": items}})
    command = ["python", "-m", "finetune_rewards.check", "--rewards", REWARDS_PATH]
    command += ["--rows", _ROWS_PATH, *source_arguments(job)]
    settings = pod_settings(job, _GRACE_SECONDS)
    if tolerations := [*settings.get("tolerations", []), *_device_tolerations(job)]:
        settings["tolerations"] = tolerations
    mounted = [*inputs, rows, tmp, rewards, *runner_volumes(job)]
    return {
        **settings,
        "restartPolicy": "Never",
        "initContainers": [_rows_container(job, image, [*inputs, rows, tmp])],
        "containers": [runner(job, image, command, [rewards, rows_to_read])],
        "volumes": [volume for volume, _ in mounted],
    }


def _device_tolerations(job: FineTuneJob) -> list[Object]:
    """Return what admission (ExtendedResourceToleration) adds to pods that ask for devices.

    Where such nodes are tainted, it is all that lets the attempts onto them.
    """
    return [
        {"key": name, "operator": "Exists", "effect": "NoSchedule"}
        for name in extended_resources(job)
    ]


def _rows_container(job: FineTuneJob, image: str, mounted: list[VolumeAndMount]) -> Object:
    command = ["python", "-m", "finetune_trainer.sample_rows", "--output", _ROWS_PATH]
    sources = [
        DataSource(uri=s.uri, file_format=s.file_format, config=s.config, split=s.split)
        for s in job.spec.data.train
    ]
    command += [part for source in sources for part in ("--source", source.to_json())]
    if job.spec.data.columns is not None:
        command += ["--columns", job.spec.data.columns.to_json()]
    if "data" in credentials(job):
        command += ["--credentials", credentials_directory("data")]
    rows = container(ROWS_CONTAINER, image, command, mounted, ENVIRONMENT)
    return {**rows, "resources": modest("2Gi")}

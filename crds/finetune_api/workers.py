"""FineTuneJob.spec.workers: the allow-listed part of a pod."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.quantity import Quantity
from finetune_api.types import ATOMIC, Name, Rule, keyed_by
from finetune_contract.model import Message, Reach

LabelValue = Annotated[
    str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
]
Quantities = Annotated[
    dict[str, Quantity], Field(max_length=16, json_schema_extra={"maxProperties": 16})
]
GPU = "nvidia.com/gpu"
# Where the pods have mounts of their own, beside /tmp.
_TAKEN = (
    *("/etc/finetune", "/run/finetune", "/var/run/finetune"),
    *("/var/cache/finetune", "/var/run/secrets"),
)


def is_gpu_count(value: str) -> str:
    """Return CEL that tells whether an int-or-string is a whole number from 1 to 99."""
    as_text = f"{value}.matches('^[1-9][0-9]?$')"
    return f"(type({value}) == int ? {value} > 0 && {value} < 100 : {as_text})"


@Rule(
    f"!has(self.limits) || !('{GPU}' in self.limits) || " + is_gpu_count(f"self.limits['{GPU}']"),
    "nvidia.com/gpu must be a whole number from 1 to 99; leave it out to train on CPUs",
    ".limits",
)
class Resources(Message):
    """Compute resources of one worker."""

    limits: Quantities | None = None
    """Most of each resource; `nvidia.com/gpu` also sets the number of processes per worker (one per
    GPU, or one process on the CPU)."""
    requests: Quantities | None = None
    """Least of each resource; as limits where not given."""


class Toleration(Message):
    """A taint that the pods may ignore."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """The taint's key; none with operator Exists means every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are compared."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The effect to ignore; none means all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a NoExecute taint is tolerated."""


class ClaimVolume(Message):
    """A PersistentVolumeClaim in the job's namespace."""

    claim_name: Name
    """Name of the claim."""


class ConfigMapVolume(Message):
    """A ConfigMap in the job's namespace."""

    name: Name
    """Name of the ConfigMap."""


class EmptyDirVolume(Message):
    """A directory that lives as long as the pod."""

    medium: Literal["", "Memory"] = ""
    """`Memory` for a tmpfs, for instance at /dev/shm."""
    size_limit: Quantity | None = None
    """Most bytes, as a quantity."""


@Rule(
    "[has(self.persistentVolumeClaim), has(self.configMap), has(self.emptyDir)]"
    ".filter(x, x).size() == 1",
    "set exactly one of persistentVolumeClaim, configMap and emptyDir",
)
@Rule(
    "!(" + " || ".join(f"self.mountPath.startsWith('{path}')" for path in _TAKEN) + ")"
    " && self.mountPath != '/tmp' && self.mountPath != '/tmp/'",
    f"mountPath must not be /tmp or lie in {', '.join(_TAKEN)}; choose another path",
    ".mountPath",
)
class Volume(Message):
    """A volume and where it is mounted. Other kinds of volume are not allowed."""

    name: Annotated[
        str, Field(min_length=1, max_length=50, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    ]
    """Name of the volume."""
    mount_path: Annotated[str, Field(min_length=2, max_length=1024, pattern=r"^/[^:]*$")]
    """Where it appears in the trainer's container."""
    read_only: bool = False
    """Mount it read-only."""
    persistent_volume_claim: ClaimVolume | None = None
    """A claim."""
    config_map: ConfigMapVolume | None = None
    """A ConfigMap."""
    empty_dir: EmptyDirVolume | None = None
    """A directory of the pod."""


@Rule(
    "!has(self.volumes) || self.volumes.all(one,"
    " self.volumes.exists_one(other, other.mountPath == one.mountPath))",
    "two volumes have the same mountPath; choose another path for one of them",
    ".volumes",
)
class Workers(Message):
    """The pods that train."""

    replicas: Annotated[int, Field(ge=1, le=512)] = 1
    """Number of pods."""
    image: (
        Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\s]+$"), Reach.IMAGE]
        | None
    ) = None
    """Trainer image; none means the one that the operator was installed with."""
    resources: Resources | None = None
    """Compute resources of each pod."""
    node_selector: (
        Annotated[
            dict[str, LabelValue], Field(max_length=32, json_schema_extra={"maxProperties": 32})
        ]
        | None
    ) = None
    """Labels that a node must have."""
    tolerations: (
        Annotated[
            list[Toleration],
            Field(max_length=32, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """Taints that the pods may ignore."""
    service_account_name: Annotated[Name, Reach.SERVICE_ACCOUNT] | None = None
    """Run as this ServiceAccount, for instance one with a cloud identity; none means one made for
    the job."""
    volumes: (
        Annotated[
            list[Volume],
            Field(max_length=16, json_schema_extra=keyed_by("name")),
        ]
        | None
    ) = None
    """Volumes to mount: claims, ConfigMaps and empty directories."""

    @property
    def limits(self) -> dict[str, Quantity]:
        """Return resources.limits by resource; empty without any."""
        return (self.resources.limits if self.resources else None) or {}

    @property
    def processes_per_worker(self) -> int:
        """Return the number of training processes in a pod: one per GPU, or one."""
        return int(self.limits.get(GPU, 1))

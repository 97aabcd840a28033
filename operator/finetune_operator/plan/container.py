"""What every container of a job's pods has in common, whatever it runs."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_operator.job.names import Object
from finetune_operator.plan.volumes import VolumeAndMount

# The root file system is read-only and the user has no entry in /etc/passwd: caches go to /tmp, and
# libraries that ask for the user's name must find one.
BARE = {"HOME": "/tmp", "USER": "finetune"}  # noqa: S108 - an emptyDir of the pod
ENVIRONMENT = {
    **BARE,
    "HF_HOME": "/tmp/huggingface",  # noqa: S108
    "TORCH_HOME": "/tmp/torch",  # noqa: S108
    "TORCH_EXTENSIONS_DIR": "/tmp/torch-extensions",  # noqa: S108
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torch-inductor",  # noqa: S108
    "TRITON_CACHE_DIR": "/tmp/triton",  # noqa: S108
}


def container(
    name: str,
    image: str,
    command: list[str],
    mounted: Iterable[VolumeAndMount],
    environment: dict[str, str],
) -> Object:
    """Return a container that may do nothing but what its command does with its mounts."""
    return {
        "name": name,
        "image": image,
        "command": command,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "volumeMounts": [mount for _, mount in mounted],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def modest(memory: str) -> Object:
    """Return the resources of a container beside the trainer's, or before it."""
    return {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "2", "memory": memory},
    }

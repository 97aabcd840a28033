"""The device a rank computes on."""

from __future__ import annotations

import torch

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure


def choose_device(*, gpus: bool, local_rank: int) -> torch.device:
    """Return the rank's GPU, or the CPU where there is none and none was asked for.

    Raises Failure(DeviceUnsupported): a pod that asked for GPUs must not train on its CPU unheard.
    """
    if not torch.cuda.is_available():
        if gpus:
            raise Failure(Reason.DEVICE_UNSUPPORTED, _no_gpu())
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise Failure(
            Reason.DEVICE_UNSUPPORTED,
            f"there is no GPU for process {local_rank} of this node, which has "
            f"{torch.cuda.device_count()}; every process needs one of its own",
        )
    return torch.device("cuda", local_rank)


def describe_device(device: torch.device) -> str:
    """Return the device's name as its driver tells it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _no_gpu() -> str:
    asked = "the pods ask for GPUs (spec.workers.resources), but"
    if torch.version.cuda is None:
        return f"{asked} the image's torch is for CPUs; set spec.workers.image to one with CUDA"
    return (
        f"{asked} torch finds none that works with CUDA {torch.version.cuda}; bring the node's "
        "NVIDIA driver up to date, or use a spec.workers.image built for an older CUDA"
    )

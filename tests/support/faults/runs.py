"""Rows: memory, limits of nodes, and the run itself."""

from __future__ import annotations

from finetune_contract.reasons import Reason
from finetune_rewards.runner.client import AWAY_SECONDS
from finetune_trainer.course.pulse import LEAST
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.verdict import ABORTED, BUS_ERROR
from finetune_trainer.stall import OTHERS_SECONDS
from support.faults.day import Day
from support.faults.ends import PEER_LOST, dies, ends, killed_by_the_kernel
from support.faults.table import Fault

GPUS = {"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "64Gi"}}}


def ladder(size: int, **memory: object) -> dict[str, object]:
    return {"workers": GPUS, "training": {"microBatchSize": size}, "memory": memory}


def freezes(day: Day) -> None:
    day.at_work = False
    day.once(lambda: day.attempt > 1, lambda: setattr(day, "at_work", True))


def does_not_load(day: Day) -> None:
    """Let the pod that tries the rewards find that one can not be used."""

    def tried() -> bool:
        pod = day.world.find("Pod", "bot-rewards")
        return pod is not None and pod["status"]["phase"] == "Running"

    day.once(tried, lambda: day.world.end("bot-rewards", "RewardInvalid"))


CODE = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}
GRPO = {"method": {"type": "GRPO", "grpo": {"rewards": [CODE]}}}
CUDA = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.")
MEMLOCK = RuntimeError("NCCL error: Call to ibv_reg_mr failed with error Cannot allocate memory")
SHM = RuntimeError("NCCL error: Error: failed to extend /dev/shm/nccl-x to 9637892 bytes")
FILES = OSError(24, "Too many open files")
STOOD = Failure(Reason.STALLED, "no rank got on for 600 s in Train at step 26", step=26)
SERVER = Failure(Reason.ROLLOUT_UNAVAILABLE, "grpo.rollout.uri: no answer")
REWARD = Failure(Reason.REWARD_UNAVAILABLE, "the reward runner was away")
ROLLOUT_PAUSE = 1800.0  # of finetune_trainer.rollout.server, which would import torch

FAULTS = [
    Fault("a container passes its memory limit", killed_by_the_kernel, spec=ladder(4)),
    Fault("CUDA out of memory", ends(CUDA), spec=ladder(4)),
    Fault("… at `microBatchSize` 1", ends(CUDA), spec=ladder(1)),
    Fault("… and with checkpointing", ends(CUDA), spec=ladder(1, gradientCheckpointing="Always")),
    Fault(
        "… and with offload",
        ends(CUDA),
        spec=ladder(1, gradientCheckpointing="Always", offload=["Optimizer"]),
    ),
    Fault("locked memory too small for RDMA", ends(MEMLOCK)),
    Fault("`/dev/shm` is full", ends(SHM)),
    Fault("`/dev/shm` is full: a bus error", dies(BUS_ERROR)),
    Fault("too many open files", ends(FILES)),
    Fault("a rank is killed without a word", dies()),
    Fault("a rank crashes in native code", dies("Fatal Python error: Segmentation fault")),
    Fault("NCCL aborts: a peer was lost", dies(ABORTED)),
    Fault("the network between nodes breaks", ends(PEER_LOST)),
    Fault("no rank gets on", ends(STOOD), patience=LEAST + OTHERS_SECONDS),
    Fault("all processes of the pods are frozen", freezes),
    Fault("the loss is NaN", ends(Failure(Reason.NON_FINITE_LOSS, "the loss is not finite"))),
    Fault("a reward does not load at its trial", does_not_load, before=True, spec=GRPO),
    Fault("the reward runner is away", ends(REWARD), patience=AWAY_SECONDS),
    Fault("the rollout server is dead", ends(SERVER), patience=ROLLOUT_PAUSE),
    Fault("an error that the trainer does not know", ends(KeyError("x"))),
]

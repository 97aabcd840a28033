"""What of a run lies where: DeepSpeed made ready for a run's ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.ops import __compatible_ops__
from deepspeed.runtime.keep_in_fp32 import keep_in_fp32_pattern
from torch import nn
from transformers.integrations import HfDeepSpeedConfig

from finetune_contract.layout import Offload, ZeroStage
from finetune_contract.recipe import Precision
from finetune_trainer.memory.formula import BUCKET_ELEMENTS, LIVE_ELEMENTS
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.run import ResolvedRun


def deepspeed_config(run: ResolvedRun) -> dict[str, Any]:
    """Return DeepSpeed's configuration for a run."""
    training, offload = run.config.recipe.training, run.config.layout.offload
    stage = run.resolved.zero_stage
    zero: dict[str, Any] = {
        "stage": int(stage),
        "overlap_comm": False,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        "stage3_prefetch_bucket_size": LIVE_ELEMENTS // 2,
        "stage3_max_live_parameters": LIVE_ELEMENTS,
        "stage3_max_reuse_distance": LIVE_ELEMENTS,
    }
    if Offload.OPTIMIZER in offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if Offload.PARAMETERS in offload:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": run.resolved.micro_batch_size,
        "gradient_accumulation_steps": run.resolved.accumulation_steps,
        "gradient_clipping": 0.0 if stage is ZeroStage.DDP else training.max_grad_norm,
        "zero_optimization": zero,
        # torch's own optimizers need no compiler on the machine.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


def prepare_deepspeed(ranks: Ranks) -> None:
    """Make DeepSpeed use the process group that exists."""
    __compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled at start
    backend = "nccl" if ranks.device.type == "cuda" else "gloo"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


@contextmanager
def sharded_loading(run: ResolvedRun) -> Iterator[None]:
    """Let transformers load parameters straight into ZeRO-3 shards, where that is the stage."""
    if run.resolved.zero_stage is ZeroStage.PARAMETERS:
        # Here alone these stand for the number format of the shards.
        precision = run.config.recipe.training.precision
        formats = {
            "bf16": {"enabled": precision is Precision.BF16},
            "fp16": {"enabled": precision is Precision.FP16},
        }
        alive = HfDeepSpeedConfig({**deepspeed_config(run), **formats})
        init, deepspeed.zero.Init = deepspeed.zero.Init, _Init
        try:
            yield
        finally:
            deepspeed.zero.Init = init
            del alive  # transformers holds it weakly
    else:
        yield


class _Init(deepspeed.zero.Init):  # type: ignore[misc]
    """Shards a model while it is made, but for the weights that transformers keeps in fp32.

    DeepSpeed keeps buffers so, and would round weights, such as routers: ZeRO-3 would train on
    another base than the other stages. Here they stay whole and fp32 until the engine shards them,
    from rank 0's values, as it does adapters.
    """

    def _keep_in_fp32(self, module: nn.Module) -> None:
        super()._keep_in_fp32(module)
        pattern = keep_in_fp32_pattern(module, self.keep_in_fp32_modules, self.dtype)
        if pattern is None:
            return
        for path, owner in module.named_modules():
            for name, weight in list(owner.named_parameters(path, recurse=False)):
                if hasattr(weight, "ds_id") and pattern.search(name):
                    whole = torch.empty(weight.ds_shape, device=self.local_device).float()
                    owner.register_parameter(name.rpartition(".")[2], nn.Parameter(whole))

"""The DeepSpeed engine: one optimizer step whose loss is the mean over all its learned tokens.

DeepSpeed averages gradients over ranks and over micro-batches, as if each held equally many
tokens. The loss handed to it is therefore the sum over tokens, divided by the tokens of the whole
step and multiplied by ranks x micro-batches, so that layout never changes the numbers.

Its own mixed precision stays off: the base is frozen, in whatever format it was loaded, and the
adapters are fp32 all through, so the master weights are the weights. What FP16 needs, a scaled loss
(arXiv 1710.03740), is done here: gradients are scaled back as autograd hands them over, before
DeepSpeed sees them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from deepspeed.ops import __compatible_ops__
from deepspeed.utils import set_z3_leaf_module
from torch import Tensor
from transformers.integrations import HfDeepSpeedConfig

from finetune_contract.layout import Checkpointing, Layout, Offload, ZeroStage
from finetune_contract.memory import BUCKET_ELEMENTS, LIVE_ELEMENTS
from finetune_contract.reasons import Reason
from finetune_contract.recipe import Optimizer, Precision, TrainingRecipe
from finetune_contract.runconfig import RunConfig
from finetune_trainer.batch import MicroBatch
from finetune_trainer.distributed import Ranks
from finetune_trainer.errors import Failure
from finetune_trainer.methods import METHODS
from finetune_trainer.random_state import random_state, restore_random_state
from finetune_trainer.scoring import Scorer, score

log = logging.getLogger(__name__)

FIRST_LOSS_SCALE = 65536.0
GROWTH_STEPS = 2000  # without an overflow, before FP16's loss scale doubles, as torch's GradScaler


@dataclass(frozen=True)
class StepOutcome:
    """A step's mean loss per learned token and its gradient norm before clipping."""

    loss: float
    grad_norm: float


class NonFinite(Failure):
    """A loss or gradient is not finite, at a micro-batch (from 0) of a rank; all ranks agree."""

    def __init__(self, what: str, rank: int, micro_batch: int) -> None:
        super().__init__(
            Reason.NON_FINITE_LOSS,
            f"the {what} of micro-batch {micro_batch} on rank {rank} is not finite",
            rank=rank,
        )
        self.what = what
        self.micro_batch = micro_batch


def zero_stage(layout: Layout) -> ZeroStage:
    """Return the stage in effect.

    One process has nobody to shard with, and plain steps cost less; but only ZeRO offloads.
    """
    assert layout.zero_stage is not None, "Auto is resolved before"
    if layout.world_size == 1 and not layout.offload:
        return ZeroStage.DDP
    return layout.zero_stage


def deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """Return DeepSpeed's configuration for a layout."""
    training, layout = config.recipe.training, config.layout
    stage = zero_stage(layout)
    zero: dict[str, Any] = {
        "stage": int(stage),
        "overlap_comm": False,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        "stage3_prefetch_bucket_size": LIVE_ELEMENTS // 2,
        "stage3_max_live_parameters": LIVE_ELEMENTS,
        "stage3_max_reuse_distance": LIVE_ELEMENTS,
    }
    if Offload.OPTIMIZER in layout.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if Offload.PARAMETERS in layout.offload:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.accumulation_steps,
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
def sharded_loading(config: RunConfig) -> Iterator[None]:
    """Let transformers load parameters straight into ZeRO-3 shards, where that is the stage."""
    if zero_stage(config.layout) is ZeroStage.PARAMETERS:
        # Here alone these stand for the number format of the shards.
        precision = config.recipe.training.precision
        formats = {
            "bf16": {"enabled": precision is Precision.BF16},
            "fp16": {"enabled": precision is Precision.FP16},
        }
        alive = HfDeepSpeedConfig({**deepspeed_config(config), **formats})
        yield
        del alive  # transformers holds it weakly
    else:
        yield


class Engine:
    """Steps the trainable parameters of a PEFT model.

    `parameters` are those parameters by the PEFT model's names; under ZeRO-3 they are whole only
    inside `gathered`. `loss_scale` is FP16's, and `clean_steps` those that it stood without an
    overflow; whoever restores a run restores both.
    """

    def __init__(self, model: Any, config: RunConfig, ranks: Ranks) -> None:
        self._ranks = ranks
        self._training = config.recipe.training
        self._loss_sum = METHODS[config.recipe.method]
        self._passes = config.accumulation_steps
        self.stage = zero_stage(config.layout)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        torch.use_deterministic_algorithms(self._training.deterministic)
        self._scales = self._training.precision is Precision.FP16
        self.loss_scale = FIRST_LOSS_SCALE if self._scales else 1.0
        self.clean_steps = 0
        checkpointing = config.layout.gradient_checkpointing is Checkpointing.ALWAYS
        scorer = Scorer(model, checkpointing=checkpointing)
        if scorer.head is not None:
            # Neither do the hooks of an adapter in it count its chunks.
            for module in (scorer.head, scorer.head.projection):
                set_z3_leaf_module(module, True)
        trainable = list(self.parameters.values())
        for parameter in trainable:
            parameter.register_hook(self._take_gradient)
        self.deepspeed, self.optimizer, _, _ = deepspeed.initialize(
            model=scorer,
            optimizer=_optimizer(self._training, trainable),
            config=deepspeed_config(config),
            dist_init_required=False,
        )
        self.deepspeed.train()
        self._pass = 0
        # Per micro-batch: the sum of losses, and of the norms of its gradients.
        self._sums = torch.zeros(2, self._passes, device=ranks.device)
        self._norms = torch.zeros(ranks.world, self._passes)

    def step(
        self,
        batches: Sequence[MicroBatch],
        tokens: int,
        rate: float,
        stops: Callable[[], bool],
    ) -> StepOutcome | None:
        """Do one optimizer step over this rank's micro-batches.

        `tokens` are the learned tokens of the step on all ranks. `stops` is asked before each
        micro-batch and must answer all ranks alike: once true, the step is left undone and None
        returned. Raises NonFinite before the weights are touched. Where FP16's scaled gradients
        overflow, the step is done again with half the scale.
        """
        assert len(batches) == self._passes
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = random_state(self._ranks.device)
        while self._accumulate(batches, tokens, stops):
            losses, bad_gradient = self._agreed()
            if bad_gradient is None:
                outcome = StepOutcome(losses / tokens, self._update())
                self._grow_scale()
                return outcome
            if self.loss_scale == 1:
                raise NonFinite("gradient", *bad_gradient)
            self._discard()
            self.loss_scale, self.clean_steps = max(1.0, self.loss_scale / 2), 0
            log.warning("FP16 gradients overflow: again with loss scale %g", self.loss_scale)
            restore_random_state(drawn, self._ranks.device)
        return None

    def _accumulate(
        self, batches: Sequence[MicroBatch], tokens: int, stops: Callable[[], bool]
    ) -> bool:
        """Add up the gradients of all micro-batches; tell whether it came to the end."""
        factor = self.loss_scale * self._ranks.world * self._passes / tokens
        self._sums.zero_()
        for self._pass, batch in enumerate(batches):
            if stops():
                return False
            loss = self._loss_sum(score(self.deepspeed, batch), batch.weights)
            self._sums[0, self._pass] = loss.detach()
            self.deepspeed.backward(loss * factor)
            if self._pass < self._passes - 1:
                self.deepspeed.step()
        return True

    def _take_gradient(self, gradient: Tensor) -> Tensor:
        """Scale a gradient back, and note its norm: it is finite only if all its elements are."""
        if self.loss_scale != 1:
            gradient = gradient / self.loss_scale
        self._sums[1, self._pass] += torch.linalg.vector_norm(gradient)
        return gradient

    def _agreed(self) -> tuple[float, tuple[int, int] | None]:
        """Return the summed loss of all ranks, and where a gradient is not finite, if anywhere.

        Raises NonFinite for a loss.
        """
        sums = self._ranks.gather(self._sums)  # [ranks, 2, micro-batches]
        self._norms = sums[:, 1]
        bad = ~sums.isfinite()
        if bad[:, 0].any():
            raise NonFinite("loss", *_first(bad[:, 0]))
        return float(sums[:, 0].sum()), _first(bad[:, 1]) if bad[:, 1].any() else None

    def _update(self) -> float:
        """Change the weights; return the gradient norm before clipping.

        Raises NonFinite, the weights untouched, where finite gradients have a sum that is not:
        clipping would make zeros or NaN of it, and ZeRO's step quietly does nothing.
        """
        if self.stage is ZeroStage.DDP:
            limit = self._training.max_grad_norm or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit).item()
            if math.isfinite(norm):
                self.deepspeed.step()
        else:
            self.deepspeed.step()
            norm = float(self.deepspeed.get_global_grad_norm())
        if not math.isfinite(norm):
            raise NonFinite("summed gradient", *divmod(int(self._norms.argmax()), self._passes))
        return norm

    def _grow_scale(self) -> None:
        if not self._scales:
            return
        self.clean_steps += 1
        if self.clean_steps == GROWTH_STEPS:
            self.loss_scale, self.clean_steps = 2 * self.loss_scale, 0

    def _discard(self) -> None:
        """Let go of gradients that are not finite; weights and optimizer stay as they are.

        ZeRO's step does so by itself.
        """
        if self.stage is ZeroStage.DDP:
            for parameter in self.parameters.values():
                parameter.grad = None
        self.deepspeed.step()

    def loss_sum(self, batches: Sequence[MicroBatch]) -> float:
        """Return the summed loss of this rank's learned tokens, without dropout or gradients.

        Under ZeRO-3 every rank must come with equally many micro-batches.
        """
        self.deepspeed.eval()
        total = torch.zeros((), dtype=torch.float64, device=self._ranks.device)
        with torch.no_grad():
            for batch in batches:
                total += self._loss_sum(score(self.deepspeed, batch), batch.weights)
        self.deepspeed.train()
        return total.item()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold the whole trainable parameters on every rank; all ranks must enter."""
        with deepspeed.zero.GatheredParameters(list(self.parameters.values())):
            yield


def _optimizer(recipe: TrainingRecipe, parameters: list[Any]) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer is Optimizer.ADAMW else torch.optim.SGD
    return kind(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _first(bad: Tensor) -> tuple[int, int]:
    """Return (rank, micro-batch) of the earliest that is bad; bool [ranks, micro-batches]."""
    micro_batch, rank = bad.T.nonzero()[0].tolist()
    return rank, micro_batch

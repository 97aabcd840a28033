"""The DeepSpeed engine: one optimizer step whose loss is a mean over the whole step.

DeepSpeed averages gradients over ranks and over micro-batches, as if each held equally much. The
loss handed to it is therefore a sum over tokens, divided by the normaliser of the whole step (for
SFT its learned tokens) and multiplied by ranks x micro-batches, so that layout never changes the
numbers.

Its own mixed precision stays off: the base is frozen, in whatever format it was loaded, and the
adapters are fp32 all through, so the master weights are the weights. What FP16 needs, a scaled
loss, is done here: gradients are scaled back as autograd hands them over, before DeepSpeed sees
them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import deepspeed
import torch
from deepspeed.utils import set_z3_leaf_module
from torch import Tensor

from finetune_contract.layout import ZeroStage
from finetune_contract.reasons import Reason
from finetune_contract.recipe import Optimizer, Precision, TrainingRecipe
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.process.errors import Failure
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.log_probs import LogProbModel, score, score_with
from finetune_trainer.step.loss_scale import LossScale
from finetune_trainer.step.objective import Objective
from finetune_trainer.step.sharding import deepspeed_config

log = logging.getLogger(__name__)

_ROUTED = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True)
class StepOutcome:
    """A step's mean loss, its gradient norm before clipping, and its objective's stats, summed."""

    loss: float
    grad_norm: float
    stats: dict[str, float]


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


class Engine:
    """Steps the trainable parameters of a PEFT model.

    `parameters` are those parameters by the PEFT model's names; under ZeRO-3 they are whole only
    inside `gathered`.
    """

    def __init__(self, model: Any, objective: Objective, run: ResolvedRun) -> None:
        self._ranks = ranks = run.ranks
        self._training = run.config.recipe.training
        self._objective = objective
        self._entropy = objective.entropy
        self._stats = objective.stats + (("entropy",) if self._entropy else ())
        self._passes = run.resolved.accumulation_steps
        self.stage = run.resolved.zero_stage
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        torch.use_deterministic_algorithms(self._training.deterministic)
        self.loss_scale = LossScale.beginning(scales=self._training.precision is Precision.FP16)
        checkpointing = run.resolved.gradient_checkpointing
        wrapped = LogProbModel(
            model, checkpointing=checkpointing, temperature=objective.temperature
        )
        if wrapped.head is not None:
            # Neither do the hooks of an adapter in it count its chunks.
            for module in (wrapped.head, wrapped.head.projection):
                set_z3_leaf_module(module, True)
        trainable = list(self.parameters.values())
        self._reached: set[str] | None = set()  # by a gradient, until the first step has shown it
        for name, parameter in self.parameters.items():
            parameter.register_hook(partial(self._take_gradient, name))
        self.deepspeed, self.optimizer, _, _ = deepspeed.initialize(
            model=wrapped,
            optimizer=_optimizer(self._training, trainable),
            config=deepspeed_config(run),
            dist_init_required=False,
        )
        self.deepspeed.train()
        self._pass = 0
        # Per micro-batch: the sum of losses, of the norms of its gradients, of each stat.
        rows = 2 + len(self._stats)
        self._sums = torch.zeros(rows, self._passes, device=ranks.device)
        self._norms = torch.zeros(ranks.world, self._passes)

    def step(
        self,
        batches: Sequence[MicroBatch],
        normaliser: float,
        rate: float,
        stops: Callable[[], bool],
    ) -> StepOutcome | None:
        """Do one optimizer step over this rank's micro-batches.

        `normaliser` is what the loss summed over all ranks is divided by. `stops` is asked before
        each micro-batch and must answer all ranks alike: once true, the step is left undone and
        None returned. Raises NonFinite, and in the first step Failure(ModelUnsupported), before
        the weights are touched. Where FP16's scaled gradients overflow, the step is done again
        with half the scale.
        """
        assert len(batches) == self._passes
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = _random_state(self._ranks.device)
        while self._accumulate(batches, normaliser, stops):
            self._check_reached()
            sums, bad_gradient = self._agreed()
            if bad_gradient is None:
                stats = dict(zip(self._stats, sums[2:], strict=True))
                outcome = StepOutcome(sums[0] / normaliser, self._update(), stats)
                self.loss_scale.stepped()
                return outcome
            if self.loss_scale.value == 1:
                raise NonFinite("gradient", *bad_gradient)
            self._discard()
            self.loss_scale.overflowed()
            log.warning("FP16 gradients overflow: again with loss scale %g", self.loss_scale.value)
            _restore_random_state(drawn, self._ranks.device)
        return None

    def _accumulate(
        self, batches: Sequence[MicroBatch], normaliser: float, stops: Callable[[], bool]
    ) -> bool:
        """Add up the gradients of all micro-batches; tell whether it came to the end."""
        factor = self.loss_scale.value * self._ranks.world * self._passes / normaliser
        self._sums.zero_()
        for self._pass, batch in enumerate(batches):
            if stops():
                return False
            loss = self._loss(batch)
            self._sums[0, self._pass] = loss.detach()
            self.deepspeed.backward(loss * factor)
            if self._pass < self._passes - 1:
                self.deepspeed.step()
        return True

    def _loss(self, batch: MicroBatch) -> Tensor:
        """Return the summed loss of a micro-batch, and note its stats."""
        log_probs, entropies = score_with(self.deepspeed, batch, entropy=self._entropy)
        loss, stats = self._objective(log_probs, batch)
        if self._entropy:
            stats = torch.cat([stats, (batch.weights * entropies).sum()[None]])
        self._sums[2:, self._pass] = stats
        return loss

    def _take_gradient(self, name: str, gradient: Tensor) -> Tensor:
        """Scale a gradient back, and note its norm: it is finite only if all its elements are."""
        if self._reached is not None:
            self._reached.add(name)
        if self.loss_scale.value != 1:
            gradient = gradient / self.loss_scale.value
        self._sums[1, self._pass] += torch.linalg.vector_norm(gradient)
        return gradient

    def _check_reached(self) -> None:
        """Refuse a model that leaves an adapter unused: it would be published untrained.

        An expert that has a layer of its own gets a gradient only where a token is routed to it.
        """
        if self._reached is None:
            return
        names = [name for name in self.parameters if not _ROUTED.search(name)]
        found = torch.tensor([name in self._reached for name in names])
        missed = (~self._ranks.gather(found).bool().any(0)).nonzero().flatten().tolist()
        self._reached = None
        if missed:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                f"no gradient reaches {len(missed)} of {len(names)} adapter tensors of "
                f"spec.lora.targets, such as {names[missed[0]]}: the base model's forward pass "
                "does not use the layer; leave out its role",
            )

    def _agreed(self) -> tuple[list[float], tuple[int, int] | None]:
        """Return the sums over all ranks, and where a gradient is not finite, if anywhere.

        Raises NonFinite for a loss.
        """
        sums = self._ranks.gather(self._sums)  # [ranks, 2 + stats, micro-batches]
        self._norms = sums[:, 1]
        bad = ~sums.isfinite()
        if bad[:, 0].any():
            raise NonFinite("loss", *_first(bad[:, 0]))
        return sums.sum((0, 2)).tolist(), _first(bad[:, 1]) if bad[:, 1].any() else None

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
        total = torch.zeros((), dtype=torch.float64, device=self._ranks.device)
        for batch, log_probs in zip(batches, self.log_probs(batches), strict=True):
            total += self._objective(log_probs, batch)[0]
        return total.item()

    def log_probs(self, batches: Sequence[MicroBatch]) -> list[Tensor]:
        """Return each micro-batch's log-probabilities, fp32 [P], without dropout or gradients.

        Under ZeRO-3 every rank must come with equally many micro-batches.
        """
        self.deepspeed.eval()
        with torch.no_grad():
            found = [score(self.deepspeed, batch) for batch in batches]
        self.deepspeed.train()
        return found

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold the whole trainable parameters on every rank; all ranks must enter."""
        with deepspeed.zero.GatheredParameters(list(self.parameters.values())):
            yield


def _optimizer(recipe: TrainingRecipe, parameters: list[Any]) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer is Optimizer.ADAMW else torch.optim.SGD
    return kind(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Return the states of the generators that work on a device draws from."""
    host = torch.get_rng_state()
    return (host, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (host,)


def _restore_random_state(state: tuple[Tensor, ...], device: torch.device) -> None:
    """Let the generators go on from a state."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


def _first(bad: Tensor) -> tuple[int, int]:
    """Return (rank, micro-batch) of the earliest that is bad; bool [ranks, micro-batches]."""
    micro_batch, rank = bad.T.nonzero()[0].tolist()
    return rank, micro_batch

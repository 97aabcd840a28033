"""Which settings of a job fit into memory by the formula, and what would make it fit. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import combinations, product
from typing import Any

from finetune_contract.layout import Checkpointing, Offload, ZeroStage
from finetune_contract.recipe import Export, Publish, Quantization
from finetune_contract.resolved import MemoryEstimate
from finetune_contract.runconfig import RunConfig
from finetune_trainer.memory.formula import (
    READ_TOKENS,
    Demand,
    Setting,
    estimate,
    host_bytes,
    merging_fits,
    saving_fits,
)
from finetune_trainer.memory.shape import AdapterShape, ModelShape

USABLE = 0.95  # of a device's memory: allocators lose some between their blocks
MOST_ROWS = 16
MOST_TOKENS = {True: 32768, False: 4096}  # of a micro-batch on a GPU, on a CPU: more gains nothing
SHORTEST = 256  # tokens
MOST_WORKERS = 64
MOST_REMEDIES = 6


Change = tuple[str, dict[str, Any]]  # in the job's words, and the fields of a Wish


@dataclass(frozen=True)
class Room:
    """The bytes that one process may use on its device and, for it, in the host's memory."""

    device: int
    host: int


@dataclass(frozen=True, kw_only=True)
class Wish(Demand):
    """What a job asks for. None, or Checkpointing.AUTO, leaves it to the trainer.

    With groups of completions, of at most `completion_tokens` each, rows are completions.
    """

    global_batch_size: int
    micro_batch_size: int | None
    workers: int
    stage: ZeroStage | None
    checkpointing: Checkpointing
    group_size: int = 1
    completion_tokens: int = 0
    generates: bool = False  # with the training model

    @classmethod
    def of(cls, config: RunConfig, *, on_gpu: bool) -> Wish:
        """Return what a RunConfig asks for, whatever its method."""
        recipe, layout = config.recipe, config.layout
        return cls(
            precision=recipe.training.precision,
            quantization=recipe.lora.quantization,
            optimizer=recipe.training.optimizer,
            sequence_length=recipe.training.sequence_length,
            global_batch_size=recipe.training.global_batch_size,
            micro_batch_size=layout.micro_batch_size,
            workers=layout.workers,
            processes=layout.processes_per_worker,
            stage=layout.zero_stage,
            offload=layout.offload,
            checkpointing=layout.gradient_checkpointing,
            on_gpu=on_gpu,
            merges=Export.MERGED in recipe.export,
            keeps_best=recipe.eval.publish is Publish.BEST,
        )

    @property
    def world(self) -> int:
        """Return the number of processes."""
        return self.workers * self.processes

    def stages(self) -> tuple[ZeroStage, ...]:
        """Return the ZeRO stages to try, the least first."""
        if self.world == 1 and not self.offload:
            return (ZeroStage.DDP,)  # nobody to shard with
        if self.stage is not None:
            return (self.stage,)
        if Offload.PARAMETERS in self.offload:
            return (ZeroStage.PARAMETERS,)
        if Offload.OPTIMIZER in self.offload:
            return (ZeroStage.OPTIMIZER, ZeroStage.GRADIENTS, ZeroStage.PARAMETERS)
        return tuple(ZeroStage)

    def checkpointings(self) -> tuple[bool, ...]:
        """Return whether to checkpoint activations, what costs less time first."""
        return {
            Checkpointing.AUTO: (False, True),
            Checkpointing.ALWAYS: (True,),
            Checkpointing.NEVER: (False,),
        }[self.checkpointing]

    def micro_batch_sizes(self) -> tuple[int, ...]:
        """Return the micro-batches to try, the largest first; each divides a process's rows.

        Each holds whole groups, or an equal part of one: a prompt is shared within a micro-batch.
        """
        if self.micro_batch_size is not None:
            return (self.micro_batch_size,)
        rows = self.global_batch_size // self.world
        most = max(1, min(MOST_ROWS, MOST_TOKENS[self.on_gpu] // self.sequence_length))
        group = self.group_size
        return tuple(
            size
            for size in range(min(rows, most), 0, -1)
            if rows % size == 0 and (group % size == 0 or size % group == 0)
        )

    @property
    def prompt_tokens(self) -> int:
        """Return how many the built-in rollout engine may read at once; 0 where it is not used."""
        if not self.generates:
            return 0
        longest = self.sequence_length - self.completion_tokens
        completions = -(-self.global_batch_size // self.world)
        # The first and the last group of a process's share may be those of others as well.
        touched = 2 + (completions - 2) // self.group_size
        prompts = min(touched, self.global_batch_size // self.group_size)
        return max(longest, min(READ_TOKENS, prompts * longest))

    def setting(self, stage: ZeroStage, checkpointing: bool, micro_batch_size: int) -> Setting:
        """Return the job with its open ends settled."""
        demand = {one.name: getattr(self, one.name) for one in fields(Demand)}
        return Setting(
            **demand,
            micro_batch_size=micro_batch_size,
            world=self.world,
            stage=stage,
            checkpointing=checkpointing,
            prompt_tokens=self.prompt_tokens,
        )


@dataclass(frozen=True)
class Fitter:
    """Tries settings of one model and adapter."""

    model: ModelShape
    adapter: AdapterShape
    room: Room

    def settle(self, wish: Wish) -> Setting | None:
        """Return the first setting that fits, in the order of preference; None if none does."""
        tried = product(wish.stages(), wish.checkpointings(), wish.micro_batch_sizes())
        settings = (wish.setting(*one) for one in tried)
        return next((one for one in settings if self.fits(one)), None)

    def smallest(self, wish: Wish) -> Setting:
        """Return the setting that needs least."""
        return min(self._smallest(wish), key=lambda setting: self.estimate(setting).total)

    def estimate(self, setting: Setting) -> MemoryEstimate:
        """Return what a setting needs."""
        return estimate(self.model, self.adapter, setting, self.room.device)

    def fits(self, setting: Setting) -> bool:
        """Tell whether a setting has room on the device and on the host."""
        on_host = host_bytes(self.model, self.adapter, setting)
        on_device = self.estimate(setting).total
        host = USABLE * self.room.host
        fits = on_device <= USABLE * self.room.device and on_host <= host
        return (
            fits and self.saves(setting) and merging_fits(self.model, self.adapter, setting, host)
        )

    def saves(self, setting: Setting) -> bool:
        """Tell whether rank 0 has room on the host for a checkpoint that is being written."""
        return saving_fits(self.model, self.adapter, setting, USABLE * self.room.host)

    def remedies(self, wish: Wish) -> list[str]:
        """Return changes that each make the job fit, as few at a time as do."""
        kinds = _changes(wish)
        for count in range(1, len(kinds) + 1):
            found = [self._first(wish, together) for together in combinations(kinds, count)]
            fitting = [words for words in found if words is not None]
            if fitting:
                return fitting[:MOST_REMEDIES]
        return []

    def _first(self, wish: Wish, kinds: tuple[list[Change], ...]) -> str | None:
        """Return the mildest changes of these kinds together that fit."""
        for together in product(*kinds):
            changed = wish
            for _, change in together:
                changed = replace(changed, **change)
            if any(self.fits(setting) for setting in self._smallest(changed)):
                return " with ".join(words for words, _ in together)
        return None

    def _smallest(self, wish: Wish) -> Iterator[Setting]:
        """Yield one setting per ZeRO stage: which needs least depends on the model."""
        checkpointing, micro_batch_size = wish.checkpointings()[-1], wish.micro_batch_sizes()[-1]
        for stage in wish.stages():
            yield wish.setting(stage, checkpointing, micro_batch_size)


def _changes(wish: Wish) -> list[list[Change]]:
    """Return what could be changed, each in degrees, the mildest first."""
    kinds: list[list[Change]] = []
    if wish.checkpointing is Checkpointing.NEVER:
        change = {"checkpointing": Checkpointing.ALWAYS}
        kinds.append([("spec.memory.gradientCheckpointing Always", change)])
    if wish.micro_batch_size is not None and wish.micro_batch_size > 1:
        kinds.append([("spec.training.microBatchSize 1", {"micro_batch_size": 1})])
    if wish.world > 1 and wish.stage not in (None, ZeroStage.PARAMETERS):
        kinds.append([("spec.memory.zeroStage 3", {"stage": ZeroStage.PARAMETERS})])
    if wish.merges:
        words = "spec.output.export [Adapter] (merging holds the base in the host's memory)"
        kinds.append([(words, {"merges": False})])
    kinds += [_shorter(wish), _more_workers(wish)]
    if wish.on_gpu and wish.quantization is Quantization.NONE:
        kinds.append([("spec.lora.quantization NF4", {"quantization": Quantization.NF4})])
    if wish.on_gpu:
        kinds.append(_offloads(wish))
    return [kind for kind in kinds if kind]


def _shorter(wish: Wish) -> list[Change]:
    lengths = []
    length = wish.sequence_length // 2
    while length >= SHORTEST and length > wish.completion_tokens:
        lengths.append(length)
        length //= 2
    return [(f"spec.training.sequenceLength {n}", {"sequence_length": n}) for n in lengths]


def _more_workers(wish: Wish) -> list[Change]:
    counts = []
    workers = 2 * wish.workers
    while workers <= MOST_WORKERS and wish.global_batch_size % (workers * wish.processes) == 0:
        counts.append(workers)
        workers *= 2
    micro = wish.micro_batch_size and 1  # what was set may not divide fewer rows per process
    return [
        (f"spec.workers.replicas {n}", {"workers": n, "micro_batch_size": micro}) for n in counts
    ]


def _offloads(wish: Wish) -> list[Change]:
    """Return offloads beyond those asked for; each needs its own ZeRO stages."""
    both = (Offload.OPTIMIZER, Offload.PARAMETERS)
    auto = "" if wish.stage is None else " and zeroStage Auto"
    return [
        (f"spec.memory.offload [{', '.join(offload)}]{auto}", {"offload": offload, "stage": None})
        for offload in ((Offload.OPTIMIZER,), both)
        if len(offload) > len(wish.offload)
    ]

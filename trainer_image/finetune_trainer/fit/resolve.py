"""What the job leaves to the trainer, settled before data and weights: the Auto values.

By the memory formula (`memory.formula`) the job gets the least ZeRO stage that fits, checkpoints
activations only if it must, and the largest micro-batch that then fits. What the user set stays.
A job that can not fit is refused here, with what would make it fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finetune_contract.layout import Layout
from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraRecipe, Precision
from finetune_contract.resolved import GIB, MemoryEstimate, Resolved
from finetune_contract.runconfig import RunConfig
from finetune_trainer.adapter.lora import refuse_bare
from finetune_trainer.adapter.roles import Kind, RoleMap, map_roles
from finetune_trainer.fit.fitting import USABLE, Fitter, Room, Wish
from finetune_trainer.memory.formula import Setting, snapshot_bytes
from finetune_trainer.memory.shape import AdapterShape, ModelShape, TensorHeader
from finetune_trainer.model.architectures import ARCHITECTURES
from finetune_trainer.model.base import empty_model
from finetune_trainer.model.positions import check_length
from finetune_trainer.model.quantization import check_quantization
from finetune_trainer.model.twin import check_causal
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.machine import memory_bytes
from finetune_trainer.rollout.probe import check_drawing
from finetune_trainer.run import ResolvedRun, Run
from finetune_trainer.step.log_probs import splits
from finetune_trainer.store.headers import read_headers
from finetune_trainer.store.sources import ModelSource

log = logging.getLogger(__name__)

HAS_BF16 = (8, 0)  # CUDA compute capability


def resolve(
    run: Run, model: ModelSource, directory: Path, asks: Callable[[Wish], Wish]
) -> ResolvedRun:
    """Return the run with Auto settled, the same on every rank; all ranks must call it.

    The directory holds the model's small files; of its weights only headers are read. `asks` adds
    to a wish what the method asks for. Raises
    Failure: DeviceUnsupported, ModelUnsupported (a role that the model lacks), InsufficientMemory.
    """
    config, ranks = run.config, run.ranks
    rooms = ranks.everywhere(lambda: _survey(config, ranks.device))
    least = smallest(rooms)
    wish = asks(Wish.of(config, on_gpu=ranks.device.type == "cuda"))
    resolved = ranks.lead(lambda: settle(config, model, directory, wish, least))
    run.reporter.resolved(resolved)
    return run.settled(resolved)


def _survey(config: RunConfig, device: torch.device) -> Room:
    """Return what this node offers. Nodes differ, so each is asked and any may refuse."""
    check_device(config.recipe.training.precision, device)
    check_quantization(config.recipe, device)
    return room(device, config.layout)


def smallest(rooms: Sequence[Room]) -> Room:
    """Return what every one of these has."""
    return Room(min(r.device for r in rooms), min(r.host for r in rooms))


def settle(
    config: RunConfig, model: ModelSource, directory: Path, wish: Wish, least: Room
) -> Resolved:
    """Return how a wish is met by processes that each have at least this room."""
    recipe, layout = config.recipe, config.layout
    empty = empty_model(directory)
    known = empty.config.model_type in ARCHITECTURES
    roles = map_roles(empty)
    refuse_bare(empty, roles.asked(recipe.lora.targets), recipe.lora)
    check_length(empty, recipe.training.sequence_length)
    if not known:
        check_causal(empty)
        if wish.generates:
            check_drawing(empty)
    adapter = adapter_shape(roles, recipe.lora)
    shape = _shape(empty, read_headers(model, layout.credentials.model))
    fitter = Fitter(shape, adapter, least)
    setting = fitter.settle(wish)
    if setting is None:
        raise _insufficient(fitter, wish)
    packing = layout.packing and known
    if packing != layout.packing:
        log.warning("model_type %s is padded, not packed", empty.config.model_type)
    resolved = _resolved(wish, setting, fitter.estimate(setting), packing=packing)
    if why := _unshared(resolved, wish.group_size, empty.config.model_type):
        log.warning("prompts are computed more than once for their completions: %s", why)
    return resolved


def _shape(empty: Any, headers: Mapping[str, TensorHeader]) -> ModelShape:
    try:
        shape = ModelShape.of(empty.config.get_text_config().to_dict(), headers)
    except KeyError as error:
        raise Failure(
            Reason.MODEL_UNSUPPORTED, f"the model's config.json has no {error.args[0]}"
        ) from error
    return replace(shape, whole_logits=not splits(empty))


def check_device(precision: Precision, device: torch.device) -> None:
    """Refuse a number format that the device does not compute in."""
    field = f"spec.training.precision {precision}"
    if device.type != "cuda":
        if precision is Precision.FP16:
            raise Failure(
                Reason.DEVICE_UNSUPPORTED, f"{field} needs a GPU; take BF16 or FP32 on a CPU"
            )
    elif precision is Precision.BF16 and torch.cuda.get_device_capability(device) < HAS_BF16:
        raise Failure(
            Reason.DEVICE_UNSUPPORTED,
            f"{field} does not work on {torch.cuda.get_device_name(device)}, which is older than "
            "compute capability 8.0; take FP16 or FP32",
        )


def adapter_shape(roles: RoleMap, recipe: LoraRecipe) -> AdapterShape:
    """Return the size of a recipe's adapter. Raises ModelUnsupported for a role not there."""
    asked = [weight for weights in roles.asked(recipe.targets).values() for weight in weights]
    magnitudes = sum(weight.outputs for weight in asked) if recipe.dora else 0
    return AdapterShape(
        parameters=magnitudes
        + sum(recipe.rank * (w.inputs + w.outputs) * w.count for w in asked),  # A and B
        inputs=sum(w.inputs + recipe.rank for w in asked if w.kind is Kind.LINEAR),
        # PEFT adds the update to the whole of a bare parameter in every forward pass, so a second
        # copy of it lives until the layer's backward pass.
        folded=sum(w.inputs * w.outputs * w.count for w in asked if w.kind is Kind.PARAMETER),
    )


def room(device: torch.device, layout: Layout) -> Room:
    """Return what each process of this node may use: of the smallest GPU, else of the host."""
    host = memory_bytes() // layout.processes_per_worker
    if device.type != "cuda":
        return Room(host, host)
    devices = range(torch.cuda.device_count())
    return Room(min(torch.cuda.get_device_properties(i).total_memory for i in devices), host)


def _unshared(resolved: Resolved, group: int, kind: str) -> str:
    """Return why a prompt is not computed once for its group; "" where it is, or there are none."""
    if group == 1:
        return ""
    if kind not in ARCHITECTURES:
        return f"rows of model_type {kind} can not be packed"
    if not resolved.packing:
        return "spec.training.packing is false"
    size = resolved.micro_batch_size
    return f"a micro-batch of {size} holds no group of {group}" if size < group else ""


def _resolved(wish: Wish, setting: Setting, memory: MemoryEstimate, *, packing: bool) -> Resolved:
    resolved = Resolved(
        micro_batch_size=setting.micro_batch_size,
        accumulation_steps=wish.global_batch_size // (setting.micro_batch_size * wish.world),
        zero_stage=setting.stage,
        gradient_checkpointing=setting.checkpointing,
        packing=packing,
        memory=memory,
    )
    log.info(
        "micro-batch %d x %d, ZeRO-%d, gradient checkpointing %s, packing %s; about %s a process",
        *(resolved.micro_batch_size, resolved.accumulation_steps, resolved.zero_stage),
        *("on" if resolved.gradient_checkpointing else "off", "on" if resolved.packing else "off"),
        memory.in_words(),
    )
    return resolved


def _insufficient(fitter: Fitter, wish: Wish) -> Failure:
    setting = fitter.smallest(wish)
    memory = fitter.estimate(setting)
    needed = f"each process needs about {memory.in_words()}"
    if memory.total <= USABLE * fitter.room.device and not fitter.saves(setting):
        needed += (
            f", and rank 0 {snapshot_bytes(fitter.adapter, setting) / GIB:.1f} GiB of the host's "
            "memory for a checkpoint (memory of spec.workers.resources, spec.lora.rank)"
        )
    remedies = fitter.remedies(wish)
    advice = (
        f"by the formula one of these would fit: {'; '.join(remedies)}"
        if remedies
        else "no setting makes it fit: use devices with more memory or a smaller model"
    )
    return Failure(Reason.INSUFFICIENT_MEMORY, f"{needed}; {advice}")

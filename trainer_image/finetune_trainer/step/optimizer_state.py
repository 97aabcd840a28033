"""Weights and moments, whole and by parameter name, out of an optimizer and back into one.

DeepSpeed flattens what it steps: under ZeRO-1 and 2 a rank's optimizer holds a span of all
parameters laid end to end, under ZeRO-3 a span of each. DeepSpeed's own setters leave the working
copy as it was, need moments that exist, and under ZeRO-3 a size that the ranks divide; so the spans
are looked up and written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
from torch import Tensor

from finetune_contract.layout import ZeroStage
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.step.engine import Engine

Tensors = dict[str, Tensor]  # name in the PEFT model -> fp32 in host memory


@dataclass(frozen=True)
class Moments:
    """What the optimizer remembers: updates done, and per kind (`exp_avg`) a tensor by name."""

    updates: int = 0
    kinds: dict[str, Tensors] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """Elements of a flattened parameter that lie in a tensor which this rank's optimizer steps."""

    name: str
    start: int  # in the parameter
    numel: int
    flat: Tensor
    offset: int  # in `flat`

    def of(self, tensor: Tensor) -> Tensor:
        """Return a view of the elements in a tensor laid out like `flat`."""
        return tensor.view(-1).narrow(0, self.offset, self.numel)

    def cut(self, whole: Tensor) -> Tensor:
        """Return a view of the elements in the whole parameter."""
        return whole.view(-1).narrow(0, self.start, self.numel)


def whole_shape(parameter: Any) -> torch.Size:
    """Return the whole parameter's shape, also where ZeRO-3 has left only a part of it here."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def gather_moments(engine: Engine, ranks: Ranks) -> Moments:
    """Return the moments on rank 0, none on the others; all ranks must call it."""
    state, spans = _state(engine), _spans(engine, ranks)
    kinds = sorted(_kinds(state, spans))
    held = (state[span.flat] for span in spans if span.flat in state)
    updates = max((int(one.get("step", 0)) for one in held), default=0)  # SGD counts no steps
    if engine.stage is ZeroStage.DDP:
        if not ranks.is_lead:
            return Moments()
        return Moments(
            updates,
            {kind: {s.name: _host(state[s.flat][kind]) for s in spans} for kind in kinds},
        )
    found = Moments(updates, {})
    places = [(span.name, span.start, span.numel) for span in spans]
    for kind in ranks.lead(lambda: kinds):
        whole = {
            n: torch.empty(whole_shape(p)) for n, p in engine.parameters.items() if ranks.is_lead
        }

        def place(places: list[tuple[str, int, int]], flat: Tensor, whole: Tensors = whole) -> None:
            offset = 0
            for name, start, numel in places:
                part = flat.narrow(0, offset, numel)
                whole[name].view(-1).narrow(0, start, numel).copy_(part)
                offset += numel

        mine = [span.of(state[span.flat][kind]).detach().cpu().float() for span in spans]
        ranks.collect(places, torch.cat([torch.empty(0), *mine]), place)
        if ranks.is_lead:
            found.kinds[kind] = whole
    return found


def gather_weights(engine: Engine, ranks: Ranks) -> Tensors:
    """Return the weights on rank 0, none on the others; all ranks must call it."""
    with engine.gathered():
        return {n: _host(p) for n, p in engine.parameters.items() if ranks.is_lead}


def restore_weights(engine: Engine, weights: Tensors, ranks: Ranks) -> None:
    """Put rank 0's weights into every rank's model, working copy and optimizer's copy.

    All ranks must call it; what the others give is not read.
    """
    spans = _by_name(engine, ranks)
    for name, parameter in engine.parameters.items():
        whole = _share(weights, name, parameter, ranks)
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(whole)
        for span in spans[name]:
            span.of(span.flat.data).copy_(span.cut(whole))


def restore_moments(engine: Engine, moments: Moments, ranks: Ranks) -> None:
    """Put rank 0's moments into every rank's optimizer; all ranks must call it."""
    state, spans = _state(engine), _by_name(engine, ranks)
    updates, kinds = ranks.lead(lambda: (moments.updates, sorted(moments.kinds)))
    for kind in kinds:
        for name, parameter in engine.parameters.items():
            whole = _share(moments.kinds.get(kind, {}), name, parameter, ranks)
            for span in spans[name]:
                held = state[span.flat]  # of a dict that makes what it lacks
                held["step"] = torch.tensor(float(updates))
                if kind not in held:
                    held[kind] = torch.zeros_like(span.flat.data)
                span.of(held[kind]).copy_(span.cut(whole))


def _by_name(engine: Engine, ranks: Ranks) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {name: [] for name in engine.parameters}
    for span in _spans(engine, ranks):
        found[span.name].append(span)
    return found


def _spans(engine: Engine, ranks: Ranks) -> list[Span]:
    found, optimizer = [], engine.optimizer
    for name, parameter in engine.parameters.items():
        if engine.stage is ZeroStage.DDP:
            found.append(Span(name, 0, parameter.numel(), parameter, 0))
        elif engine.stage is ZeroStage.PARAMETERS:
            group, offset, padded = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = min(ranks.rank * padded, parameter.ds_numel)
            numel = min(padded, parameter.ds_numel - start)
            flat = optimizer.fp32_partitioned_groups_flat[group]
            found.append(Span(name, start, numel, flat, offset))
        elif (mapping := parameter._hp_mapping) is not None:  # some of it is this rank's
            whole, part = mapping.lp_fragment_address, mapping.hp_fragment_address
            flat = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            found.append(Span(name, whole.start, whole.numel, flat, part.start))
    return found


def _state(engine: Engine) -> Any:
    """Return the state of the torch optimizer, which DeepSpeed wraps where it shards."""
    plain = engine.stage is ZeroStage.DDP
    return engine.optimizer.state if plain else engine.optimizer.optimizer.state


def _kinds(state: Any, spans: list[Span]) -> set[str]:
    return {
        kind
        for span in spans
        if span.flat in state
        for kind, value in state[span.flat].items()
        if torch.is_tensor(value) and value.shape == span.flat.shape
    }


def _share(tensors: Tensors, name: str, parameter: Any, ranks: Ranks) -> Tensor:
    mine = tensors[name] if ranks.is_lead else torch.empty(whole_shape(parameter))
    return ranks.share(mine)


def _host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)

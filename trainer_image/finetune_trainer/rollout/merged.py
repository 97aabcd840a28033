"""The adapter in the base's weights for as long as completions are drawn.

A merged layer costs what a plain one does. The original tensors are kept beside the merged ones and
put back as they are: taking an update off again would leave rounding in the base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn

from finetune_trainer.adapter.lora import ADAPTER


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """Merge the adapter of a PEFT model whose weights are whole and not quantised.

    A weight that two layers share stays as it is: an update of one is not the other's.
    """
    with torch.no_grad():
        originals = {layer: _weight(layer).data for layer in mergeable(model)}
        try:
            for layer in originals:
                _merge(layer)
            yield
        finally:
            for layer, original in originals.items():
                _weight(layer).data = original
                layer.merged_adapters.clear()


def mergeable_bytes(model: Any) -> int:
    """Return the bytes that merging adds."""
    return sum(_weight(layer).nbytes for layer in mergeable(model))


def mergeable(model: Any) -> list[Any]:
    """Return the LoRA layers whose weight is theirs alone."""
    uses = Counter(
        id(parameter)
        for module in model.modules()
        if not isinstance(module, LoraLayer)
        for parameter in module.parameters(recurse=False)
    )
    layers = (m for m in model.modules() if isinstance(m, LoraLayer) and ADAPTER in m.scaling)
    return [layer for layer in layers if uses[id(_weight(layer))] == 1]


def _merge(layer: Any) -> None:
    """Add the update in fp32, so that a weight of half precision is rounded once."""
    weight = _weight(layer)
    dtype = weight.dtype
    weight.data = weight.data.to(torch.float32, copy=True)
    layer.merge(adapter_names=[ADAPTER])  # in place
    weight.data = weight.data.to(dtype)
    layer._caches.clear()  # what DoRA keeps to take its update off again


def _weight(layer: Any) -> Tensor:
    base: nn.Module = layer.get_base_layer()
    name = layer.parameter_name if isinstance(layer, ParamWrapper) else "weight"
    weight = getattr(base, name)
    assert isinstance(weight, Tensor)
    return weight

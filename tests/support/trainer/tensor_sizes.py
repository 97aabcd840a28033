"""Watches how large tensors get."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Within it, notes the most elements that any operation returned, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


class PeakBytes(TorchDispatchMode):
    """Within it, notes the most bytes that were held at once by tensors made within it."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held = 0  # of `_live`, what has gone since it was last looked at included
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if _is_dense(t)}
        for tensor in tree_leaves(found):
            if _is_dense(tensor) and tensor.untyped_storage()._cdata not in before:
                storage = tensor.untyped_storage()
                gone = self._live.pop(storage._cdata, (None, 0))[1]  # its place was taken again
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self._held += storage.nbytes() - gone
        if self._held > self.peak:
            self._live = {k: held for k, held in self._live.items() if not held[0].expired()}
            self._held = sum(size for _, size in self._live.values())
            self.peak = max(self.peak, self._held)
        return found


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided

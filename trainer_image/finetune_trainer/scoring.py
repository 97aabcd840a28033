"""The model as DeepSpeed gets it: tokens in, log-probabilities of the learned tokens out.

The backbone runs once. Vocabulary projection and cross-entropy run only where a token is learned,
and in chunks of positions whose logits are computed again in the backward pass: the logits of a
large vocabulary never exist whole. Where a model is more than a backbone and a projection they do,
and the memory formula counts them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finetune_contract.memory import LOGITS_BYTES
from finetune_trainer import attention
from finetune_trainer.architectures import ARCHITECTURES
from finetune_trainer.attention import Segments
from finetune_trainer.batch import MicroBatch
from finetune_trainer.twin import probe_ids, small_twin

ALIKE = 1e-3  # of the spread of log-probabilities, far above rounding


class Scorer(nn.Module):
    """Wraps a PEFT model; its parameters keep their names below `model.`.

    `head` is None where the model must run whole; only what `packs` takes packed rows.
    """

    def __init__(self, model: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.model = model
        causal = model.get_base_model()
        self.packs = causal.config.model_type in ARCHITECTURES
        self.head = Head(causal) if splits(causal) else None
        if self.packs:
            causal.set_attn_implementation(attention.NAME)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        segments: Segments | None,
        rows: Tensor,
        times: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Return the log-probabilities, fp32 [P], of what a MicroBatch learns."""
        packed: dict[str, Any] = {}
        if segments is not None:
            assert self.packs, "packed rows need the attention that keeps them apart"
            packed = {"position_ids": position_ids, "segments": segments}
        if self.head is None:
            # Not `logits_to_keep`: a model that does not know it takes it and returns all.
            logits = self.model(input_ids=input_ids, use_cache=False, **packed).logits
            return log_probs(logits[rows, times], targets)
        backbone = self.model.get_base_model().base_model
        hidden = backbone(input_ids=input_ids, use_cache=False, **packed).last_hidden_state
        scored: Tensor = self.head(hidden[rows, times], targets)
        return scored


class Head(nn.Module):
    """The vocabulary projection and the cross-entropy over it.

    One module to ZeRO-3 (a leaf), so that its weights are gathered once, however many chunks a rank
    has: the ranks' collectives must be as many.
    """

    def __init__(self, causal: Any) -> None:
        super().__init__()
        config = causal.config.get_text_config()
        self.projection = causal.get_output_embeddings()
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self._factor = getattr(config, "logit_scale", None) or 1 / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        self._chunk = max(1, LOGITS_BYTES // (torch.float32.itemsize * config.vocab_size))

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log-probabilities, fp32 [P], of hidden states [P, width]."""
        if len(targets) <= self._chunk:
            return self._score(hidden, targets)
        chunks = zip(*(torch.split(t, self._chunk) for t in (hidden, targets)), strict=True)
        return torch.cat([checkpoint(self._score, *chunk, use_reentrant=False) for chunk in chunks])

    def _score(self, hidden: Tensor, targets: Tensor) -> Tensor:
        # Not called as a module: hooks of ZeRO-3 would see another number of calls on every rank.
        logits = self.projection.forward(hidden)
        if self._factor != 1:
            logits = logits * self._factor
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return log_probs(logits, targets)


def splits(causal: Any) -> bool:
    """Tell whether a causal language model is a backbone and a Head.

    What is not in the table is tried on a small random model of its class, whose own forward pass
    must give the same.
    """
    if causal.config.model_type in ARCHITECTURES:
        return True
    twin = small_twin(causal)
    if twin is None:
        return False
    ids = probe_ids()
    with torch.no_grad():
        whole = log_probs(twin(input_ids=ids, use_cache=False).logits[0], ids[0])
        try:
            hidden = twin.base_model(input_ids=ids, use_cache=False).last_hidden_state
            split = Head(twin)(hidden[0], ids[0])
        # Of a class with another backbone, or with more between the two.
        except (AttributeError, RuntimeError, TypeError):
            return False
    return bool((split - whole).abs().max() <= ALIKE * whole.std())


def log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability, fp32 [P], that logits [P, V] give to each target."""
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def score(scorer: Any, batch: MicroBatch) -> Tensor:
    """Return the log-probabilities, fp32 [P], of a micro-batch's learned tokens."""
    scored: Tensor = scorer(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        segments=batch.segments,
        rows=batch.rows,
        times=batch.times,
        targets=batch.targets,
    )
    return scored

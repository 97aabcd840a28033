"""The model as DeepSpeed gets it: tokens in, log-probabilities of the learned tokens out.

The backbone runs once. Vocabulary projection and cross-entropy run only where a token is learned,
and in chunks of positions whose logits are computed again in the backward pass: the logits of a
large vocabulary never exist whole. Where a model is more than a backbone and a projection they do,
and the memory formula counts them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.memory.formula import LOGITS_BYTES
from finetune_trainer.model import attention
from finetune_trainer.model.architectures import ARCHITECTURES
from finetune_trainer.model.attention import Segments
from finetune_trainer.model.twin import probe_ids, small_twin

Scores = tuple[Tensor, Tensor]  # log-probabilities [P]; entropies [P], or [0] unless asked for

ALIKE = 1e-3  # of the spread of log-probabilities, far above rounding


class LogProbModel(nn.Module):
    """Wraps a PEFT model; its parameters keep their names below `model.`.

    `head` is None where the model must run whole; only what `packs` takes packed rows. Logits are
    divided by `temperature`.
    """

    def __init__(self, model: Any, *, checkpointing: bool, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        causal = model.get_base_model()
        self.packs = causal.config.model_type in ARCHITECTURES
        self.head = Head(causal, temperature) if splits(causal) else None
        self._temperature = temperature
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
        entropy: bool,
    ) -> Scores:
        """Return the log-probabilities, fp32, of what a MicroBatch learns.

        With `entropy` also the entropies of the distributions they are of, without a gradient.
        """
        packed: dict[str, Any] = {}
        if segments is not None:
            assert self.packs, "packed rows need the attention that keeps them apart"
            packed = {"position_ids": position_ids, "segments": segments}
        if self.head is None:
            # Not `logits_to_keep`: a model that does not know it takes it and returns all.
            logits = self.model(input_ids=input_ids, use_cache=False, **packed).logits
            return scores(divided(logits[rows, times], self._temperature), targets, entropy)
        backbone = self.model.get_base_model().base_model
        hidden = backbone(input_ids=input_ids, use_cache=False, **packed).last_hidden_state
        found: Scores = self.head(hidden[rows, times], targets, entropy=entropy)
        return found


class Head(nn.Module):
    """The vocabulary projection and the cross-entropy over it.

    One module to ZeRO-3 (a leaf), so that its weights are gathered once, however many chunks a rank
    has: the ranks' collectives must be as many. `most` bytes of logits exist at a time.
    """

    def __init__(self, causal: Any, temperature: float = 1.0, most: int = LOGITS_BYTES) -> None:
        super().__init__()
        self._temperature = temperature
        config = causal.config.get_text_config()
        self.projection = causal.get_output_embeddings()
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self._factor = getattr(config, "logit_scale", None) or 1 / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        self._chunk = max(1, most // (torch.float32.itemsize * config.vocab_size))

    def forward(self, hidden: Tensor, targets: Tensor, *, entropy: bool = False) -> Scores:
        """Return what LogProbModel does, of hidden states [P, width]."""
        if len(targets) <= self._chunk:
            return self._score(entropy, hidden, targets)
        chunks = zip(*(torch.split(t, self._chunk) for t in (hidden, targets)), strict=True)
        block = partial(self._score, entropy)
        found = [checkpoint(block, *chunk, use_reentrant=False) for chunk in chunks]
        log_probs, entropies = zip(*found, strict=True)
        return torch.cat(log_probs), torch.cat(entropies)

    def _score(self, entropy: bool, hidden: Tensor, targets: Tensor) -> Scores:
        # Not called as a module: hooks of ZeRO-3 would see another number of calls on every rank.
        logits = self.projection.forward(hidden)
        if self._factor != 1:
            logits = logits * self._factor
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return scores(divided(logits, self._temperature), targets, entropy)


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
            split, _ = Head(twin)(hidden[0], ids[0])
        # Of a class with another backbone, or with more between the two.
        except (AttributeError, RuntimeError, TypeError):
            return False
    return bool((split - whole).abs().max() <= ALIKE * whole.std())


def divided(logits: Tensor, temperature: float) -> Tensor:
    """Return fp32 logits over a temperature; no copy of fp32 ones where it is 1.

    Half precision would round each quotient, and training would see another distribution than the
    one that completions are drawn from.
    """
    logits = logits.float()
    return logits if temperature == 1 else logits / temperature


def log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability, fp32 [P], that logits [P, V] give to each target."""
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def scores(logits: Tensor, targets: Tensor, entropy: bool) -> Scores:
    """Return what LogProbModel does, of fp32 logits [P, V]."""
    found = log_probs(logits, targets)
    if not entropy:
        return found, found.new_empty(0)
    plain, targets = logits.detach(), targets[:, None]
    total = plain.gather(1, targets) - found.detach()[:, None]  # the logarithm of sums of exp
    mean = torch.linalg.vecdot((plain - total).exp_(), plain)
    return found, total[:, 0] - mean


def score(scorer: Any, batch: MicroBatch) -> Tensor:
    """Return the log-probabilities, fp32 [P], of a micro-batch's learned tokens."""
    return score_with(scorer, batch, entropy=False)[0]


def score_with(scorer: Any, batch: MicroBatch, *, entropy: bool) -> Scores:
    """Return the log-probabilities, fp32, of a micro-batch's learned tokens, and the entropies."""
    found: Scores = scorer(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        segments=batch.segments,
        rows=batch.rows,
        times=batch.times,
        targets=batch.targets,
        entropy=entropy,
    )
    return found

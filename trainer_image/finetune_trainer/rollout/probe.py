"""Whether a model draws, token by token, what its forward pass over the whole text tells."""

from __future__ import annotations

import logging
from typing import Any

import torch

from finetune_contract.reasons import Reason
from finetune_trainer.model.architectures import ARCHITECTURES
from finetune_trainer.model.twin import SHARED, probe_ids, small_twin
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.decoders import PlainDecoder

log = logging.getLogger(__name__)

ALIKE = 1e-3  # of the logits' spread, far above rounding
OWNERS = (0, 0, 1)  # of the probe's rows


def check_drawing(model: Any, decoder: type[PlainDecoder] = PlainDecoder) -> None:
    """Refuse a model outside the table whose cache can not be drawn with.

    Tried on a small random model of its class. Raises Failure(ModelUnsupported).
    """
    kind = model.config.model_type
    twin = small_twin(model)
    if twin is None:
        log.warning("model_type %s could not be checked for drawing completions", kind)
        return
    try:
        apart = _apart(twin, decoder)
    except Exception as error:  # of others' code, whatever it is
        raise undrawable(kind, f"its cache does not work ({type(error).__name__})") from error
    if not apart <= ALIKE:
        raise undrawable(kind, "token by token it gives other logits than over the whole text")


def undrawable(kind: str, why: str) -> Failure:
    """Return the failure of a model_type that completions can not be drawn with."""
    return Failure(
        Reason.MODEL_UNSUPPORTED,
        f"the built-in rollout engine can not draw with model_type {kind}: {why}; take a base "
        f"model of model_type {', '.join(sorted(ARCHITECTURES))}",
    )


def _apart(twin: Any, decoder_of: type[PlainDecoder]) -> float:
    """Return how far logits of three rows, one dropped on the way, are from the whole pass's."""
    first, second = probe_ids(), probe_ids(1)
    ids = torch.cat([first, second, first.flip(1)])
    prompts = [ids[0, :SHARED].int().numpy(), ids[2, :SHARED].int().numpy()]
    with torch.no_grad():
        whole = twin(input_ids=ids, use_cache=False).logits.float()
        decoder = decoder_of(twin, prompts, OWNERS, ids.device)
        [logits] = decoder.read()
        found, rows = [(logits[list(OWNERS)], whole[:, SHARED - 1])], [0, 1, 2]
        for place in range(SHARED, ids.shape[1]):
            if place == SHARED + 2:
                decoder.keep(torch.tensor([1, 2]))
                rows = [1, 2]
            found.append((decoder.step(ids[rows, place]), whole[rows, place]))
    return max(float((got - true).abs().max()) for got, true in found) / float(whole.std())

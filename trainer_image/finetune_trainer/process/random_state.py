"""torch's random numbers on the host and on a device: where they stand, and going back there."""

from __future__ import annotations

import torch
from torch import Tensor


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Return the states of the generators that work on a device draws from."""
    host = torch.get_rng_state()
    return (host, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (host,)


def restore_random_state(state: tuple[Tensor, ...], device: torch.device) -> None:
    """Let the generators go on from a state."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)

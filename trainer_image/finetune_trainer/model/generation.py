"""Where generation stops: at the tokens that the model's files name, and at those that end what is
taught of a turn. They differ where a base model is given a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_trainer.data.ends import turn_ends
from finetune_trainer.model.files import GENERATION_CONFIG, read_config


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens at which generation stops, those of the model's files first."""
    ids = model.generation_config.eos_token_id
    named = [*(ids if isinstance(ids, list | tuple) else (ids,)), tokenizer.eos_token_id]
    found = [int(token) for token in named if token is not None]
    return list(dict.fromkeys([*found, *sorted(turn_ends(tokenizer))]))


def save_generation_config(model: Any, tokenizer: Any, base: Path, directory: Path) -> None:
    """Write the generation_config.json of directory `base`, with all tokens at which to stop.

    Its other settings are the author's, whatever transformers makes of them.
    """
    settings = read_config(base, GENERATION_CONFIG) if (base / GENERATION_CONFIG).exists() else {}
    settings["eos_token_id"] = stop_tokens(model, tokenizer)
    (directory / GENERATION_CONFIG).write_text(json.dumps(settings, indent=2) + "\n")

"""JSON files of a base model, which anyone may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"


def read_config(directory: Path, name: str = CONFIG) -> dict[str, Any]:
    """Return a configuration of the model. Raises Failure(ModelUnsupported)."""
    try:
        config = json.loads((directory / name).read_bytes())
    except (ValueError, RecursionError) as error:
        raise Failure(Reason.MODEL_UNSUPPORTED, f"the model's {name} is not JSON") from error
    if not isinstance(config, dict):
        raise Failure(Reason.MODEL_UNSUPPORTED, f"the model's {name} is not a JSON object")
    return config


def parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what may describe the language model: the whole, and the part for text if any."""
    return [part for part in (config, config.get("text_config")) if isinstance(part, dict)]

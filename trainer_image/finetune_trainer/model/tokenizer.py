"""The base model's tokenizer, from a directory on disk, without torch. Code in it is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure

# Of transformers' `from_pretrained`: no file but the model's here is read, and code never run.
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_tokenizer(directory: Path) -> Any:
    """Return the fast tokenizer; only a fast one tells where its tokens stand in the text."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), **LOCAL)
    except (OSError, ValueError, ImportError) as error:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            "the model's tokenizer can not be loaded; it needs a tokenizer.json",
        ) from error
    if not tokenizer.is_fast:
        raise Failure(
            Reason.MODEL_UNSUPPORTED, "the model has no fast tokenizer; it needs a tokenizer.json"
        )
    return tokenizer


def vocabulary_size(directory: Path) -> int | None:
    """Return how many tokens the base model knows by its config.json; None if that does not tell.

    A tokenizer may have fewer, and one of another model more.
    """
    path = directory / "config.json"
    if not path.exists():
        return None
    config = json.loads(path.read_bytes())
    found = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    return None if found is None else int(found)

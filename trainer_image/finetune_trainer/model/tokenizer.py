"""The base model's tokenizer, from a directory on disk, without torch. Code in it is never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from finetune_contract.reasons import Reason
from finetune_trainer.model.files import CONFIG, parts, read_config
from finetune_trainer.process.errors import Failure, is_panic

# Of transformers' `from_pretrained`: no file but the model's here is read, and code never run.
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_tokenizer(directory: Path) -> Any:
    """Return the fast tokenizer; only a fast one tells where its tokens stand in the text."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), **LOCAL)
        if tokenizer.is_fast:  # what is to stand around each text is looked up only now
            tokenizer.backend_tokenizer.encode("")
    except MemoryError:
        raise
    except BaseException as error:  # of others' code, on files that anyone may have written
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            "the model's tokenizer can not be loaded; it needs a tokenizer.json without faults",
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
    if not (directory / CONFIG).exists():
        return None
    config = read_config(directory)
    found = next((size for part in parts(config) if (size := part.get("vocab_size"))), None)
    return found if isinstance(found, int) else None

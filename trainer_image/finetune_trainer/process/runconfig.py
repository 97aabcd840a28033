"""Read RunConfig from its file, or say field by field why not."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_trainer.process.errors import Failure


def read_run_config(path: Path) -> RunConfig:
    """Return the document; raise InvalidRunConfig naming every refused field."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise Failure(
            Reason.INVALID_RUN_CONFIG, f"{path} can not be read: {error.strerror}"
        ) from error
    try:
        return RunConfig.model_validate_json(text)
    except ValidationError as error:
        # Without the input: a refused value may be anything, a secret put in the wrong place too.
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'document'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise Failure(Reason.INVALID_RUN_CONFIG, "\n".join(faults)) from error

"""Read RunConfig from its file, or say field by field why not."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.model import is_as_told
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import ATTEMPT_VARIABLE, DIGEST_VARIABLE, RunConfig
from finetune_trainer.process.errors import Failure


def attempt_told() -> int:
    """Return the number of the attempt by the environment; `finetune run` has but one."""
    return int(os.environ.get(ATTEMPT_VARIABLE, "1"))


def read_run_config(path: Path) -> RunConfig:
    """Return the document; raise InvalidRunConfig naming every refused field.

    Raises InputChanged if it is another than the environment says; `finetune run` has none to say.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise Failure(
            Reason.INVALID_RUN_CONFIG, f"{path} can not be read: {error.strerror}"
        ) from error
    if not is_as_told(text, DIGEST_VARIABLE):
        raise Failure(
            Reason.INPUT_CHANGED,
            f"{path} is not what the operator wrote: someone changed the attempt's ConfigMap; "
            "the next attempt is given one of its own",
        )
    try:
        return RunConfig.model_validate_json(text)
    except ValidationError as error:
        # Without the input: a refused value may be anything, a secret put in the wrong place too.
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'document'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise Failure(Reason.INVALID_RUN_CONFIG, "\n".join(faults)) from error

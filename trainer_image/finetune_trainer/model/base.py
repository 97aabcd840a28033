"""The base model, from a directory on disk. Code in it is never run."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_contract.reasons import Reason
from finetune_contract.recipe import Precision
from finetune_trainer.model.files import GENERATION_CONFIG, parts, read_config
from finetune_trainer.model.tokenizer import LOCAL
from finetune_trainer.process.errors import Failure

# What transformers' RuntimeErrors say of files that do not match config.json; others, such as a
# lack of memory, are none of the model's.
MISFITS = ("error(s) in loading state_dict", "conversion of the weights", "ignore_mismatched_sizes")

LOADING = {**LOCAL, "use_safetensors": True, "output_loading_info": True}  # of weights
DTYPES = {
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
    Precision.FP32: torch.float32,
}


def empty_model(directory: Path) -> Any:
    """Return the model that config.json describes, on the meta device: names and shapes only."""
    _refuse_quantised(read_config(directory))
    if (directory / GENERATION_CONFIG).exists():
        read_config(directory, GENERATION_CONFIG)  # it is loaded with the weights
    try:
        config = AutoConfig.from_pretrained(str(directory), **LOCAL)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # for a type that is not known, for fields that make no sense
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"the model's config.json describes no causal language model that transformers "
            f"{transformers.__version__} knows; code in a model is never run",
        ) from error


def _refuse_quantised(config: dict[str, Any]) -> None:
    """Refuse weights that are stored quantised: few such formats can be trained or sharded."""
    stored = next((s for part in parts(config) if (s := part.get("quantization_config"))), None)
    if stored is None:
        return
    method = stored.get("quant_method") if isinstance(stored, dict) else None
    raise Failure(
        Reason.MODEL_UNSUPPORTED,
        f"the model's weights are stored quantised (quant_method {method or 'not told'} in "
        "config.json); take the model that was not, such as its BF16 version: "
        "spec.lora.quantization NF4 quantises that when it is loaded",
    )


def load_model(directory: Path, precision: Precision | None, **options: Any) -> Any:
    """Return the frozen base model, on the CPU unless `options` name a device.

    Where ZeRO-3 is configured it is sharded, unless it is quantised while it is loaded.
    Without a precision each weight keeps the number format it is stored in. What transformers keeps
    in fp32, such as routers, is fp32 either way. `options` are those of transformers'
    `from_pretrained`.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(directory),
            dtype="auto" if precision is None else DTYPES[precision],
            **LOADING,
            **options,
        )
    except SafetensorError as error:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            "a *.safetensors file of the model is damaged; upload it again",
        ) from error
    except OSError as error:
        if error.errno not in (None, errno.ENOENT):
            raise
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            "a file of the model is missing; upload all *.safetensors files of the model and its "
            "index",
        ) from error
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in MISFITS):
            raise
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            "the model's *.safetensors files hold tensors of other sizes than its config.json "
            "tells of; upload both of one version of the model",
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise Failure(
            Reason.MODEL_UNSUPPORTED,
            f"the model's files lack {len(missing)} tensors, such as {missing[0]}; upload all "
            "*.safetensors files of the model",
        )
    return model.requires_grad_(False)

"""What of a job that is valid, or else wrong, is hardly what its user wants: warnings."""

from __future__ import annotations

from typing import Any

from kube_schema.field_errors import FieldError, Json

MOST_RATE = 1e-3
MOST_SCALE = 8
MOST_EPOCHS = 20


def doubts(body: Json) -> list[FieldError]:
    """Return what is to be warned of in a job as a user wrote it."""
    spec = _block(body, "spec")
    training, lora, method = (_block(spec, name) for name in ("training", "lora", "method"))
    found = []
    rate = _number(training.get("learningRate"))
    if method.get("type") == "GRPO" and "learningRate" not in training:
        found.append(
            FieldError(
                "spec.training.learningRate",
                "not set: the default of 2e-4 is for SFT, and GRPO is apt to lose what the model "
                'knows by it; write one, "1e-5" to begin with',
            )
        )
    if rate is not None and rate > MOST_RATE:
        found.append(
            FieldError(
                "spec.training.learningRate",
                f"{training['learningRate']} is more than LoRA stands as a rule; rates that work "
                "are about 1e-4 to 4e-4, and less for GRPO",
            )
        )
    rank, alpha = _number(lora.get("rank", 16)), _number(lora.get("alpha"))
    if rank and alpha and not lora.get("rslora") and alpha / rank > MOST_SCALE:
        found.append(
            FieldError(
                "spec.lora.alpha",
                f"alpha / rank is {alpha / rank:g}: the update is multiplied by it, as if "
                "learningRate were as many times higher; 1 or 2 is usual",
            )
        )
    epochs = _number(training.get("epochs"))
    if epochs and epochs > MOST_EPOCHS and not _block(spec, "eval").get("patience"):
        found.append(
            FieldError(
                "spec.training.epochs",
                f"after {epochs:g} passes rows are known by heart; set data.eval, "
                "eval.everySteps and eval.publish: Best, to publish what was best before",
            )
        )
    if isinstance(body, dict) and body.get("status"):
        found.append(FieldError("status", "is the operator's: what a file says there is ignored"))
    return found


def _block(value: Json, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None

"""How conditions and records word what happened and what to do."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt
from finetune_contract.reasons import Reason, advice
from finetune_contract.resolved import MemoryEstimate


def with_advice(message: str, reason: Reason) -> str:
    """Return "what happened; what to do"."""
    remedy = advice(reason)
    return f"{message}; {remedy[:1].lower()}{remedy[1:]}" if remedy else message


def attempt_end(attempt: Attempt) -> str:
    """Return how an attempt ended, in one sentence."""
    return f"attempt {attempt.number} ended{_where(attempt)}: {attempt.reason}: {attempt.message}"


def memory_told(job: FineTuneJob, estimate: MemoryEstimate | None) -> str:
    """Return what was estimated beside what there is; empty where neither is known."""
    parts = []
    if estimate is not None:
        parts.append(f"a process was estimated to need {estimate.in_words()} on its device")
    if (limit := job.spec.workers.limits.get("memory")) is not None:
        parts.append(f"the container's memory limit is {limit}")
    return ", ".join(parts)


def _where(attempt: Attempt) -> str:
    """Return after how many steps, and how many of those are not in a checkpoint."""
    if attempt.last_step is None:
        return ""
    lost = f", {attempt.lost_steps} of them lost" if attempt.lost_steps else ""
    return f" after {attempt.last_step} steps{lost}"


def bounded(text: str, longest: int = 1024) -> str:
    """Return at most so many characters: hundreds of attempts may stand in a status."""
    return text if len(text) <= longest else text[: longest - 1] + "…"

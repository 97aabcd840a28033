"""The Secrets that a job names, by the part of the job that uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.job import FineTuneJob
from finetune_api.types import SecretRef
from finetune_operator.job.run_config import Mounts


@dataclass(frozen=True)
class Credential:
    """A Secret that the job names, and the field that names it."""

    field: str
    secret: str


def credentials(job: FineTuneJob) -> dict[str, Credential]:
    """Return the Secrets that the job names, by the part of the job that uses them."""
    spec = job.spec
    refs: dict[str, tuple[str, SecretRef | None]] = {
        "model": ("spec.model", spec.model.credentials_secret_ref),
        "data": ("spec.data", spec.data.credentials_secret_ref),
        "output": ("spec.output", spec.output.credentials_secret_ref),
    }
    if spec.tracking is not None:
        refs["tracking"] = ("spec.tracking", spec.tracking.credentials_secret_ref)
    if spec.method.grpo is not None:
        of_rollout = spec.method.grpo.rollout.credentials_secret_ref
        refs["rollout"] = ("spec.method.grpo.rollout", of_rollout)
        for reward in spec.method.grpo.rewards:
            if reward.http is not None:
                field = f"spec.method.grpo.rewards[{reward.name}].http"
                refs[_reward_part(reward.name)] = (field, reward.http.credentials_secret_ref)
    return {
        part: Credential(f"{field}.credentialsSecretRef", ref.name)
        for part, (field, ref) in refs.items()
        if ref is not None
    }


def with_credentials(job: FineTuneJob, directories: Mapping[str, str]) -> Mounts:
    """Return where the trainer finds the credentials of each part of the job that has some."""
    grpo = job.spec.method.grpo
    of_rewards = {r.name: _reward_part(r.name) for r in (grpo.rewards if grpo else ())}
    return Mounts(
        model_credentials=directories.get("model"),
        data_credentials=directories.get("data"),
        output_credentials=directories.get("output"),
        tracking_credentials=directories.get("tracking"),
        rollout_credentials=directories.get("rollout"),
        reward_credentials={
            name: directories[part] for name, part in of_rewards.items() if part in directories
        },
    )


def _reward_part(name: str) -> str:
    return f"reward-{name}"

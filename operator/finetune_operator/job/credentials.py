"""The Secrets that a job names, by the part of the job that uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.job import FineTuneJob
from finetune_api.types import SecretRef
from finetune_contract.layout import Credentials


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


def with_secrets_named(job: FineTuneJob, text: str) -> str:
    """Return what a pod says, with the names of the Secrets: it knows but the fields."""
    for credential in credentials(job).values():
        field = credential.field.removeprefix("spec.method.")  # as trainers write it, or the whole
        text = text.replace(field, f'{field} ("{credential.secret}")')
    return text


def credential_directories(job: FineTuneJob, directories: Mapping[str, str]) -> Credentials:
    """Return the directories, by the part of the job that uses them, as the trainer reads them."""
    grpo = job.spec.method.grpo
    of_rewards = {r.name: _reward_part(r.name) for r in (grpo.rewards if grpo else ())}
    rewards = {name: directories[part] for name, part in of_rewards.items() if part in directories}
    others = {part: directories[part] for part in directories if part in Credentials.model_fields}
    return Credentials.model_validate({**others, "rewards": rewards or None})


def _reward_part(name: str) -> str:
    return f"reward-{name}"

"""The ConfigMap that carries an attempt's RunConfig, and what the reward runner is told of it."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_contract.runconfig import FILE_NAME, RunConfig
from finetune_operator.job.names import Object, child
from finetune_operator.plan.reward_runner import REWARDS_FILE, rewards_document


def config_map(job: FineTuneJob, attempt: int, config: RunConfig) -> Object:
    """Return it, immutable: all pods of an attempt read the same document."""
    data = {FILE_NAME: config.to_json()}
    rewards = rewards_document(job)
    if rewards is not None:
        data[REWARDS_FILE] = rewards
    return child(job, "v1", "ConfigMap", attempt, immutable=True, data=data)

"""The ConfigMap that carries an attempt's RunConfig."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_contract.runconfig import FILE_NAME, RunConfig
from finetune_operator.plan.names import Object, child


def config_map(job: FineTuneJob, attempt: int, config: RunConfig) -> Object:
    """Return it, immutable: all pods of an attempt read the same document."""
    return child(
        job, "v1", "ConfigMap", attempt, immutable=True, data={FILE_NAME: config.to_json()}
    )

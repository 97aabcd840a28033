"""An operator as Kopf's tutorials write it: `on.create` makes a job's children, one by one."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from typing import Any

import kopf

from finetune_operator.cluster.client import Cluster
from finetune_operator.job.parse import Parser
from finetune_operator.job.resources import resources
from finetune_operator.judge.decide import decide
from finetune_operator.observe.observed import Observed
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings


async def operate() -> None:
    """Make a job's children when Kopf says that it was created, and say so in status."""
    cluster = await Cluster.connect(resources(BACKEND.kinds))
    registry, settings = kopf.OperatorRegistry(), Settings(trainer_image="trainer:1")
    parser = Parser()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=cluster.configuration.host)

    @kopf.on.create("finetune.dev", "v1alpha1", "finetunejobs", registry=registry)
    async def created(body: kopf.Body, **_: Any) -> dict[str, str]:
        job = parser.parse(json.loads(json.dumps(dict(body))))
        attempt = decide(job, Observed(), datetime.now(UTC), settings, BACKEND, None).run
        assert attempt is not None
        objects = attempt_objects(job, attempt, BACKEND, settings.heartbeat_seconds)
        for child in (*objects.prepared, *objects.started):
            await cluster.create(child)
        return {"state": "Submitted"}

    kopf_settings = kopf.OperatorSettings()
    kopf_settings.scanning.disabled = True
    await kopf.operator(
        registry=registry,
        settings=kopf_settings,
        standalone=True,
        namespaces=[os.environ["FINETUNE_WATCH_NAMESPACES"]],
    )


if __name__ == "__main__":
    asyncio.run(operate())

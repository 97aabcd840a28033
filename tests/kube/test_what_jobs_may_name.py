"""What the chart forbids by default reaches the operator, which knows its own ServiceAccount."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster.bench import Bench, condition
from support.cluster.installation import installed


@pytest.fixture
async def bench(
    api: Any, namespace: str, eventually: Any, kubeconfig: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    bench = await installed(api, namespace, eventually, kubeconfig, tmp_path)
    bench.start()
    try:
        yield bench
    finally:
        bench.stop(signal.SIGKILL)


async def test_neither_a_nodes_directory_nor_the_operators_account(bench: Bench) -> None:
    (account,) = (
        item["metadata"]["name"]
        for item in await bench.items("serviceaccounts")
        if "finetune-operator" in item["metadata"]["name"]
    )
    await bench.apply(
        model={"uri": "hf://o/m", "cache": {"hostPath": {"path": "/models"}}},
        workers={"serviceAccountName": account},
    )
    refused = await bench.until_reason("InvalidSpec")
    message = condition(refused, "Stalled")["message"]
    assert f"{account} is the operator's own ServiceAccount" in message
    assert "/models is not among what the chart's policy.hostPath allows" in message
    assert await bench.items("pytorchjobs") == []

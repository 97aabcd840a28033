"""What the chart forbids by default reaches the operator, which knows its own ServiceAccount."""

from __future__ import annotations

from support.cluster.bench import Bench, condition


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

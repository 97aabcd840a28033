"""A bench on a server, with what the chart installs there beside the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from finetune_api.crd import custom_resource_definition
from kube_emulator import training_operator
from support.cluster.bench import Bench
from support.operator.charts import LEASE, quick

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PYTORCHJOBS = Path(training_operator.__file__).parent / "pytorchjobs.yaml"


async def installed(
    api: Any, namespace: str, eventually: Any, kubeconfig: Path, directory: Path
) -> Bench:
    """Return a bench on a server that serves the custom resources; no operator runs yet."""
    for body in (custom_resource_definition(), yaml.safe_load(PYTORCHJOBS.read_text())):
        made = await api.post(CRDS, body)
        assert made.status in (201, 409), made.body
    directory.mkdir(exist_ok=True)
    own = directory / "operator.kubeconfig"
    bench = Bench(api, namespace, eventually, directory, kubeconfig, own)

    async def served() -> bool:
        answers = [await api.get(bench.path(p)) for p in ("finetunejobs", "pytorchjobs")]
        return all(a.status == 200 for a in answers)

    await eventually(served, "the custom resources")
    await _give_permissions(bench)
    return bench


async def _give_permissions(bench: Bench) -> None:
    """Give the operator's ServiceAccount what the chart gives it in this namespace, and the
    operators' Lease as one who left hands it over: the first need not wait."""
    bodies = quick(bench.namespace, "leader", "role", "serviceaccount")
    lease = {"kind": "Lease", "metadata": {"name": LEASE}, "spec": {"holderIdentity": ""}}
    for body in [*bodies, lease]:
        made = await bench.api.post(bench.path(f"{body['kind'].lower()}s"), body)
        assert made.status == 201, made.body
    (account,) = (b["metadata"]["name"] for b in bodies if b["kind"] == "ServiceAccount")
    token = await bench.token(account)
    config = yaml.safe_load(bench.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    bench.own_kubeconfig.write_text(yaml.safe_dump(config))

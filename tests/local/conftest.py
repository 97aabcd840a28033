"""A cluster with the operator for all journeys."""

import json
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from finetune_local import binaries, paths
from finetune_local.cluster import running_cluster, status
from finetune_local.demo import Shell
from kube_support import target
from support.cluster.journey import Journey
from support.models.tiny_llama import write_model

QUICK = {
    "heartbeatSeconds": 0.5,
    "progressSeconds": 0.5,
    "startTimeoutSeconds": 45,  # a busy machine takes 15 to bring a Secret to a pod that waits
    "fenceTimeoutSeconds": 20,
    "retryBaseSeconds": 0.5,
}
ROWS = [{"prompt": f"{a} + {b} =", "completion": str(a + b)} for a in range(8) for b in range(4)]


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    directory = tmp_path_factory.mktemp("cluster")
    server = target.with_training_operator(tmp_path_factory.mktemp("server"))
    with server as kubeconfig, running_cluster(directory, kubeconfig=kubeconfig) as cluster:
        store = cluster.s3.store("journey")
        _fill(store, write_model(tmp_path_factory.mktemp("model")))
        sets = [f"--set-json=operator.{name}={value}" for name, value in QUICK.items()]
        sets += ["--set=replicas=1", "--set=watchNamespaces={default}"]
        where = ["--namespace=finetune-system", "--create-namespace"]
        chart = str(paths.asset("charts/finetune-operator"))
        Shell(cluster.kubeconfig).run(
            "helm", "install", "operator", chart, *where, *sets, "--wait", "--timeout=2m"
        )
        journey = Journey(
            binaries.kubectl(), cluster.kubeconfig, directory, store, cluster.s3.secret_keys()
        )
        journey.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "s3"},
                "stringData": journey.secret_keys,
            }
        )
        yield journey
    assert status(directory) is None, "it was not to be kept"


def _fill(store: obstore.store.S3Store, model: Path) -> None:
    for path in model.iterdir():
        obstore.put(store, f"models/tiny/{path.name}", path)
    lines = [json.dumps(row) for row in ROWS]
    obstore.put(store, "data/train.jsonl", "\n".join(lines).encode())

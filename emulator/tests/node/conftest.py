"""A cluster for each module, its pods run by the emulated node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kube_support.cluster import Cluster, running_cluster
from kube_support.fixtures import kubectl
from kube_support.pods import Pods, pods_of

__all__ = ["kubectl"]


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster of the module's own; its NODE_OPTIONS, if any, are the node's."""
    options = getattr(request.module, "NODE_OPTIONS", [])
    with running_cluster(tmp_path_factory.mktemp("cluster"), options) as found:
        yield found


@pytest.fixture
def kubeconfig(cluster: Cluster) -> Path:
    return cluster.kubeconfig


@pytest.fixture
async def pods(cluster: Cluster) -> AsyncIterator[Pods]:
    async with pods_of(cluster.kubeconfig) as found:
        yield found

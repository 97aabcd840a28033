"""A cluster of all the emulator's processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kube_support import processes


@dataclass(frozen=True)
class Cluster:
    """A running cluster; its node keeps pods in `directory`/node."""

    directory: Path
    kubeconfig: Path


@contextmanager
def running_cluster(directory: Path, node_options: Sequence[str] = ()) -> Iterator[Cluster]:
    """API server, collector, workloads, training-operator and node, until the block ends."""
    with processes.running(directory) as started:
        config = started.api_server(directory / "apiserver")
        access = f"--kubeconfig={config}"
        for module in ("collector", "workloads", "training_operator"):
            started.component(module, access)
        places = (f"--dir={directory / 'node'}", f"--mask={directory}")
        started.component("node", access, *places, *node_options)
        yield Cluster(directory, config)

"""The server under test, and clients for it; `kube_support.target` says how it is chosen."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kube_support import target
from kube_support.fixtures import _eventually, api, kubeconfig, kubectl, namespace
from support.cluster.bench import Bench
from support.cluster.installation import installed

__all__ = ["_eventually", "api", "kubeconfig", "kubectl", "namespace"]


@pytest.fixture(name="bench")
async def _bench(
    api: Any, namespace: str, eventually: Any, kubeconfig: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    """One operator at work."""
    bench = await installed(api, namespace, eventually, kubeconfig, tmp_path)
    bench.start()
    try:
        yield bench
    finally:
        bench.stop(signal.SIGKILL)  # nothing is left to be done, and Kopf takes its time


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"tests/kube ran on {target.described()}")

"""The server under test, and clients for it; `kube_support.target` says how it is chosen."""

from __future__ import annotations

import pytest

from kube_support import target
from kube_support.fixtures import _eventually, api, kubeconfig, kubectl, namespace

__all__ = ["_eventually", "api", "kubeconfig", "kubectl", "namespace"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"tests/kube ran on {target.described()}")

"""What the trainer's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.fork_server import ForkServer


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Start ranks from one process that has imported everything."""
    server = ForkServer()
    yield server
    server.close()

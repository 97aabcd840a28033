"""A service for the tests of rewards over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.services.judge import Judge, judge_server


@pytest.fixture
def judge() -> Iterator[Judge]:
    """Yield a service that scores by length until it is told otherwise."""
    with judge_server() as found:
        yield found

"""A service for the tests of rewards over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from finetune_rewards.services import circuit
from support.services.judge import Judge, judge_server


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a request sent again, and a service that is down asked again, almost at once."""
    monkeypatch.setattr(circuit, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(circuit, "LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(circuit, "FIRST_PROBE_SECONDS", 0.001)
    monkeypatch.setattr(circuit, "LONGEST_PROBE_SECONDS", 0.01)


@pytest.fixture
def judge() -> Iterator[Judge]:
    """Yield a service that scores by length until it is told otherwise."""
    with judge_server() as found:
        yield found

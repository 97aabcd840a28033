"""The faults of a store: those that end, those that last, and where they strike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_local.s3 import S3Server
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.storage import CHUNK_BYTES
from support.storage.fault_proxy import (
    DENIED,
    EXPIRED,
    FULL,
    UNAVAILABLE,
    Corrupt,
    Cut,
    FaultProxy,
    Lost,
    Slow,
)
from support.storage.s3_server import NEXT_KEY, NEXT_SECRET, write_keys

LARGE = CHUNK_BYTES + 8  # two parts
PATIENCE = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=5),
        "max_backoff": timedelta(milliseconds=20),
        "base": 2,
    },
}
PASSING = [  # faults that end, and how often they strike
    pytest.param(UNAVAILABLE, 2, id="unavailable"),
    pytest.param(FULL, 2, id="full", marks=pytest.mark.slow),
    pytest.param(Cut(1000), 1, id="cut"),
    pytest.param(Slow(0.002), None, id="slow"),
    pytest.param(Lost(), 1, id="lost-answer"),
]
LASTING = [  # faults that stay, the reason they end with, and words of its message
    pytest.param(UNAVAILABLE, Reason.STORAGE_UNAVAILABLE, "503 SlowDown", id="unavailable"),
    pytest.param(
        FULL, Reason.STORAGE_UNAVAILABLE, "no space left", id="full", marks=pytest.mark.slow
    ),
    pytest.param(Cut(0), Reason.STORAGE_UNAVAILABLE, "did not answer", id="cut"),
    pytest.param(DENIED, Reason.ACCESS_DENIED, "credentialsSecretRef", id="denied"),
    pytest.param(EXPIRED, Reason.ACCESS_DENIED, "has expired", id="expired"),
]
DAMAGING = pytest.param(Corrupt(), Reason.VERIFICATION_FAILED, "", id="corrupt")


def crossed(faults: Sequence[Any], places: Sequence[str]) -> list[Any]:
    """Return every fault at every place; those off a diagonal that meets all are slow."""
    return [
        pytest.param(
            *fault.values,
            place,
            id=f"{fault.id}-{place}",
            marks=fault.marks if row % len(places) == column else pytest.mark.slow,
        )
        for row, fault in enumerate(faults)
        for column, place in enumerate(places)
        if not (fault is DAMAGING and place.startswith("POST"))  # it has no body to alter
    ]


def failure_of(action: Callable[..., Any], *arguments: Any) -> Failure:
    """Return the Failure that an action must end with."""
    with pytest.raises(Failure) as caught:
        action(*arguments)
    return caught.value


def renew_keys(secret: Path, server: S3Server, proxy: FaultProxy) -> None:
    """Renew a mounted Secret."""
    write_keys(
        secret,
        server,
        AWS_ACCESS_KEY_ID=NEXT_KEY,
        AWS_SECRET_ACCESS_KEY=NEXT_SECRET,
        AWS_ENDPOINT_URL=proxy.endpoint,
    )

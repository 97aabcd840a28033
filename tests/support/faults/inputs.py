"""Rows: object store, hub, Secrets and data."""

from __future__ import annotations

from obstore.exceptions import GenericError

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.buckets import RETRY
from finetune_trainer.store.hub import TOO_MANY_REQUESTS, model_repository
from support.faults.day import Day
from support.faults.ends import answered, asked, bad_row, ends, refused, secret
from support.faults.table import Fault

HUB = model_repository("hf://org/model", None, None)
NO_ANSWER = asked(GenericError("error sending request: operation timed out"))
TRIED = RETRY["retry_timeout"].total_seconds()
PUBLISHING = 1800.0  # of finetune_trainer.lead, which would import torch
CHANGED = Failure(Reason.INPUT_CHANGED, "changed since the checkpoint of step 20: s3://d/a.jsonl")


def is_away_at_a_checkpoint(day: Day) -> None:
    day.world.note = "checkpoints fail: the store did not answer"


FAULTS = [
    Fault("the store is away while checkpoints are saved", is_away_at_a_checkpoint, harmless=True),
    Fault("the store is away before the first step", ends(NO_ANSWER), before=True, patience=TRIED),
    Fault("the store is away at the publication", ends(NO_ANSWER), patience=PUBLISHING),
    Fault(
        "the store's quota is full at the publication",
        ends(refused("QuotaExceeded")),
        patience=PUBLISHING,
    ),
    Fault("keys expire in the run", ends(answered(400, "ExpiredToken")), patience=120),
    Fault("SignatureDoesNotMatch", ends(refused("SignatureDoesNotMatch")), before=True),
    Fault("AccessDenied", ends(refused("AccessDenied")), before=True),
    Fault("another 4xx of the store", ends(answered(400, "InvalidRequest")), before=True),
    Fault("no such bucket", ends(answered(404, "NoSuchBucket")), before=True),
    Fault(
        "`AWS_ENDPOINT_URL: minio:9000`", ends(secret(AWS_ENDPOINT_URL="minio:9000")), before=True
    ),
    Fault(
        "`ca.crt` that is no certificate",
        ends(secret(**{CredentialKey.CA_CERTIFICATE: "x"})),
        before=True,
    ),
    Fault(
        "the hub asks for fewer requests (429)",
        ends(HUB._answered(TOO_MANY_REQUESTS, "it")),
        before=True,
        patience=HUB.patience,
    ),
    Fault("a row that is no JSON", ends(bad_row()), before=True),
    Fault("data that changed since the checkpoint", ends(CHANGED)),
    Fault("the node's disk is full", ends(OSError(28, "No space left on device"))),
]

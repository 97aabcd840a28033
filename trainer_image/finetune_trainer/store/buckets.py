"""S3 buckets through obstore: how long to wait, how often to try, whose keys to use."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.store import S3Store

from finetune_contract.layout import CredentialKey
from finetune_trainer.store.credentials import BucketAccess

log = logging.getLogger(__name__)

DEFAULT_REGION = "us-east-1"  # what stores that are not AWS's take
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")  # of the pod, where an identity webhook sets them
NO_REGION = f"neither the Secret nor the pod says {CredentialKey.REGION}"
_told: set[str] = set()  # buckets of which that is said; a model's is opened for each of its files

# A request without an answer ends within that: it is retried for 3 minutes, and read for 2.
REQUEST_SECONDS = 300.0
# An outage shorter than this costs time only; between tries it waits 10 s at most.
RETRY = {
    "max_retries": 40,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}


def open_bucket(bucket: str, access: BucketAccess) -> S3Store:
    """Return a bucket with the given keys, else with the ServiceAccount's identity."""
    # The store checks each body, so that a damaged one is refused before it counts as written.
    config: dict[str, Any] = {"checksum_algorithm": "SHA256"}
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(minutes=2),  # without a byte
        "timeout": timedelta(hours=2),
    }
    if access.endpoint:
        config["endpoint"] = access.endpoint
    # obstore takes the address from the environment too, but not leave to speak http.
    address = access.endpoint or os.environ.get(CredentialKey.ENDPOINT_URL, "")
    client["allow_http"] = urlsplit(address).scheme == "http"
    if access.certificate:
        client["root_certificate"] = access.certificate
    if access.keys is not None:
        config["credential_provider"] = access.keys
    region = access.region or next((os.environ[n] for n in REGIONS if os.environ.get(n)), None)
    if region is None and not address and bucket not in _told:
        _told.add(bucket)
        log.warning("%s; s3://%s is asked for in %s", NO_REGION, bucket, DEFAULT_REGION)
    config["region"] = region or DEFAULT_REGION
    return S3Store(bucket, client_options=client, retry_config=RETRY, **config)

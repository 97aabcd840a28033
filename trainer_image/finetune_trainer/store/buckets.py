"""S3 buckets through obstore: how long to wait, how often to try, whose keys to use."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from obstore.store import S3Store

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.credentials import MountedKeys, read_key

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


def open_bucket(
    bucket: str, credentials_field: str, credentials_dir: str | None, keys: MountedKeys | None
) -> S3Store:
    """Return a bucket with the given keys, else with the ambient identity.

    Raises Failure(AccessDenied) where the Secret of `credentials_field` lacks a key.
    """
    # The store checks each body, so that a damaged one is refused before it counts as written.
    config: dict[str, Any] = {"checksum_algorithm": "SHA256"}
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(minutes=2),  # without a byte
        "timeout": timedelta(hours=2),
    }
    if keys is not None:
        for key in (CredentialKey.ACCESS_KEY_ID, CredentialKey.SECRET_ACCESS_KEY):
            if not read_key(credentials_dir, key):
                raise Failure(
                    Reason.ACCESS_DENIED, f"the Secret of {credentials_field} has no {key}"
                )
        endpoint = read_key(credentials_dir, CredentialKey.ENDPOINT_URL)
        if endpoint:
            config["endpoint"] = endpoint
        certificate = read_key(credentials_dir, CredentialKey.CA_CERTIFICATE)
        if certificate:
            client["root_certificate"] = certificate
        client["allow_http"] = (endpoint or "").startswith("http://")
        config["region"] = read_key(credentials_dir, CredentialKey.REGION) or "us-east-1"
        config["credential_provider"] = keys
    return S3Store(bucket, client_options=client, retry_config=RETRY, **config)

"""The keys of a credentials directory: one file each, mounted from a Secret."""

from __future__ import annotations

from enum import StrEnum


class CredentialKey(StrEnum):
    """File names in the directory: the first two for s3, HF_TOKEN for gated models on hf."""

    ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
    SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105
    SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105
    ENDPOINT_URL = "AWS_ENDPOINT_URL"
    REGION = "AWS_REGION"
    CA_CERTIFICATE = "ca.crt"
    HF_TOKEN = "HF_TOKEN"  # noqa: S105

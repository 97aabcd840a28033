"""The keys of a credentials directory: one file each, mounted from a Secret."""

from __future__ import annotations

from enum import StrEnum


class CredentialKey(StrEnum):
    """File names in the directory: AWS_* and ca.crt for s3, HF_TOKEN for gated models on hf, the
    others for the tracker."""

    ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
    SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105
    SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105
    ENDPOINT_URL = "AWS_ENDPOINT_URL"
    REGION = "AWS_REGION"
    CA_CERTIFICATE = "ca.crt"
    HF_TOKEN = "HF_TOKEN"  # noqa: S105
    WANDB_API_KEY = "WANDB_API_KEY"
    MLFLOW_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105
    MLFLOW_USERNAME = "MLFLOW_TRACKING_USERNAME"
    MLFLOW_PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105

"""Secrets as files: read when they are used, since the kubelet rotates them under a running pod."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_contract.layout import CredentialKey

Keys = tuple[str, str, str | None]


def read_key(credentials_dir: str | None, key: CredentialKey) -> str | None:
    """Return one key of a credentials directory; None if it is not there."""
    if credentials_dir is None:
        return None
    try:
        return Path(credentials_dir, key.value).read_text().strip()
    except FileNotFoundError:
        return None


class MountedKeys:
    """The S3 keys of a credentials directory, for obstore: asked for anew before each request, so
    that an upload of many parts goes on with the next keys."""

    def __init__(self, credentials_dir: str) -> None:
        self._directory = credentials_dir

    def __call__(self) -> dict[str, Any]:
        """Return the keys as they are; obstore caches nothing that has expired."""
        access, secret, token = self.read()
        return {
            "access_key_id": access,
            "secret_access_key": secret,
            "token": token,
            "expires_at": datetime.now(UTC),
        }

    def read(self) -> Keys:
        """Return access key, secret and session token of one generation of the Secret.

        A rotation swaps all files at once, but between two of these reads: so read until two
        readings agree.
        """
        reading, again = None, self._read_once()
        while reading != again:
            reading, again = again, self._read_once()
        return again

    def _read_once(self) -> Keys:
        directory = self._directory
        return (
            read_key(directory, CredentialKey.ACCESS_KEY_ID) or "",
            read_key(directory, CredentialKey.SECRET_ACCESS_KEY) or "",
            read_key(directory, CredentialKey.SESSION_TOKEN) or None,
        )

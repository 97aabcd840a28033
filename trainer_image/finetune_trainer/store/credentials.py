"""Secrets as files: read when they are used, since the kubelet rotates them under a running pod."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.secret_values import fault_of

Keys = tuple[str, str, str | None]
S3_KEYS = (CredentialKey.ACCESS_KEY_ID, CredentialKey.SECRET_ACCESS_KEY)


def read_key(credentials_dir: str | None, key: CredentialKey, field: str) -> str | None:
    """Return one key of a credentials directory; None if it is not there, or empty.

    Raises Failure(CredentialsInvalid) for a value that can not be what the key is for. `field` of
    the job names the Secret.
    """
    if credentials_dir is None:
        return None
    try:
        content = Path(credentials_dir, key.value).read_bytes()
    except FileNotFoundError:
        return None
    value = content.decode(errors="replace").strip()
    if key is CredentialKey.CA_CERTIFICATE:  # of which bundles and editors hold more around it
        value = value.encode("ascii", "ignore").decode()
    if value and (fault := fault_of(key, value)):
        raise _invalid(field, f"{key} {fault}")
    return value or None


class MountedKeys:
    """The S3 keys of a credentials directory, for obstore: asked for anew before each request, so
    that an upload of many parts goes on with the next keys."""

    def __init__(self, credentials_dir: str, field: str) -> None:
        self._directory = credentials_dir
        self._field = field

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
        readings agree. Raises Failure(CredentialsInvalid).
        """
        reading, again = None, self._read_once()
        while reading != again:
            reading, again = again, self._read_once()
        access, secret, token = again
        for key, value in zip(S3_KEYS, (access, secret), strict=True):
            if value is None:
                raise _invalid(self._field, f"it has no {key}")
        return access or "", secret or "", token

    def _read_once(self) -> tuple[str | None, str | None, str | None]:
        directory, field = self._directory, self._field
        return (
            read_key(directory, CredentialKey.ACCESS_KEY_ID, field),
            read_key(directory, CredentialKey.SECRET_ACCESS_KEY, field),
            read_key(directory, CredentialKey.SESSION_TOKEN, field),
        )


@dataclass(frozen=True)
class BucketAccess:
    """How a bucket is asked for, and as whom. Without keys the ServiceAccount's identity speaks."""

    keys: MountedKeys | None = None
    endpoint: str | None = None
    region: str | None = None
    certificate: str | None = None

    @classmethod
    def read(cls, credentials_dir: str | None, field: str) -> BucketAccess:
        """Return what the Secret that `field` names says. Raises Failure(CredentialsInvalid)."""
        if credentials_dir is None:
            return cls()
        _check_names(credentials_dir, field)
        keys = MountedKeys(credentials_dir, field)
        has_keys = any(
            read_key(credentials_dir, key, field) for key in (*S3_KEYS, CredentialKey.SESSION_TOKEN)
        )
        if has_keys:
            keys.read()
        return cls(
            keys if has_keys else None,
            read_key(credentials_dir, CredentialKey.ENDPOINT_URL, field),
            read_key(credentials_dir, CredentialKey.REGION, field),
            read_key(credentials_dir, CredentialKey.CA_CERTIFICATE, field),
        )


def _check_names(credentials_dir: str, field: str) -> None:
    """Refuse a Secret of which no key is known: nobody means one that is of no use."""
    names = sorted(p.name for p in Path(credentials_dir).iterdir() if not p.name.startswith(".."))
    if not set(names) & {key.value for key in CredentialKey}:
        held = f"it holds {', '.join(names)[:200]}" if names else "it is empty"
        raise _invalid(field, f"{held}, and none of {' and '.join(S3_KEYS)}")


def _invalid(field: str, fault: str) -> Failure:
    return Failure(Reason.CREDENTIALS_INVALID, f"the Secret of {field}: {fault}")

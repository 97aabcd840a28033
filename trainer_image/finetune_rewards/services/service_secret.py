"""What is taken of a service's Secret: a token, and an authority to trust."""

from __future__ import annotations

import ssl
from pathlib import Path

from finetune_contract.layout import CredentialKey

TOKEN = "token"  # noqa: S105 - the key's name
BEARER = "bearer "
QUOTES = "\"'`"


def fault_of_form(key: str, value: str) -> str | None:
    """Return why a value can not go into a request, to follow its key; None if it can."""
    if value.startswith(f"{key}="):
        return f"begins with {key}= itself: keep what stands behind it"
    if value[:1] in QUOTES or value[-1:] in QUOTES:
        return "is in quotes: remove them (kubectl's --from-env-file keeps them)"
    if value.lower().startswith(BEARER):
        return "begins with Bearer itself: keep what stands behind it"
    if any(c.isspace() or not c.isprintable() for c in value):
        return "holds a space, a line break or a control character"
    if not value.isascii():
        return "holds a character outside ASCII"
    return None


class BadSecret(Exception):
    """The Secret holds nothing that can be used."""


class ServiceSecret:
    """A mounted Secret; None is one that there is none of. `field` of the job names it."""

    def __init__(self, directory: str | None, field: str) -> None:
        self._directory = None if directory is None else Path(directory)
        self._name = f"the Secret of {field}"

    def token(self) -> str | None:
        """Return the bearer token; None without one. Raise BadSecret.

        Ask each time: the kubelet renews it under a running pod. A Secret that only names an
        authority needs no token.
        """
        if self._directory is None:
            return None
        try:
            content = (self._directory / TOKEN).read_bytes()
        except FileNotFoundError:
            if self._authority.exists():
                return None
            raise BadSecret(f"{self._name} has no key {TOKEN!r}") from None
        token = content.decode(errors="replace").strip()
        fault = fault_of_form(TOKEN, token) if token else "is empty"
        if fault is not None:
            raise BadSecret(f"{self._name}: {TOKEN!r} {fault}")
        return token

    def trust(self) -> ssl.SSLContext:
        """Return who is trusted: the system's authorities, and `ca.crt`. Raise BadSecret."""
        context = ssl.create_default_context()
        if self._directory is not None and self._authority.exists():
            try:
                context.load_verify_locations(str(self._authority))
            except ssl.SSLError:
                key = CredentialKey.CA_CERTIFICATE.value
                raise BadSecret(f"{self._name}: {key!r} holds no certificate") from None
        return context

    @property
    def _authority(self) -> Path:
        assert self._directory is not None
        return self._directory / CredentialKey.CA_CERTIFICATE

"""What obstore raises, in the words of the job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure

EXPIRED_CODES = ("expiredtoken", "tokenrefreshrequired")
# S3's, and obstore's words for a redirect that names no place.
REGION_CODES = (
    "incorrectly configured region",
    "permanentredirect",
    "authorizationheadermalformed",
)
ALTERED_CODES = ("baddigest", "contentsha256mismatch", "contentchecksummismatch")


class Expired(Failure):
    """The session token was good once; the next one may be on its way."""


class Altered(Failure):
    """The store got something else than was sent, and refused it."""


@contextmanager
def translated(
    uri: str, field: str, not_found: Reason, *, missing_is_failure: bool
) -> Iterator[None]:
    """Raise obstore's errors about `uri`, which stands in `field`, as Failures.

    Lost conditions pass unchanged, and so does FileNotFoundError unless that is a failure.
    """
    try:
        yield
    except (PreconditionError, AlreadyExistsError):
        raise
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise _denied(uri, field, str(error).lower()) from error
    except FileNotFoundError as error:
        if not missing_is_failure:
            raise
        raise Failure(not_found, f"{uri} does not exist ({field})") from error
    except NotSupportedError as error:
        raise Failure(
            Reason.STORAGE_UNSUPPORTED, f"{uri}: the store can not do this operation"
        ) from error
    except BaseError as error:
        raise _generic(uri, field, not_found, str(error).lower()) from error


def _denied(uri: str, field: str, text: str) -> Failure:
    secret = f"{field}.credentialsSecretRef"
    if any(code in text for code in EXPIRED_CODES):
        return Expired(
            Reason.ACCESS_DENIED,
            f"the store refused access to {uri}: the session token of {secret} has expired",
        )
    return Failure(
        Reason.ACCESS_DENIED, f"the store refused access to {uri} with the credentials of {secret}"
    )


def _generic(uri: str, field: str, not_found: Reason, text: str) -> Failure:
    """Tell apart what obstore calls generic. Its text holds URLs and XML answers: not shown."""
    if "169.254.169.254" in text or "metadata endpoint" in text:
        return Failure(
            Reason.ACCESS_DENIED,
            f"no credentials for {uri}: set {field}.credentialsSecretRef, or give the pod's "
            "ServiceAccount an identity",
        )
    if any(code in text for code in REGION_CODES):
        return Failure(
            Reason.ACCESS_DENIED,
            f"the bucket of {uri} is in another region: set {CredentialKey.REGION} in the Secret "
            f"of {field}.credentialsSecretRef",
        )
    if "nosuchbucket" in text or "404 not found" in text:
        return Failure(not_found, f"{uri} does not exist ({field})")
    if any(code in text for code in ("401 unauthorized", "403 forbidden", "accessdenied")):
        return _denied(uri, field, text)
    if "no space left" in text or "os error 28" in text:
        return Failure(Reason.DISK_FULL, f"no space left for {uri}")
    if "permission denied" in text or "os error 13" in text:
        return _denied(uri, field, text)
    if "507 insufficient" in text or "storagefull" in text:
        return Failure(Reason.STORAGE_UNAVAILABLE, f"the store has no space left for {uri}")
    if any(code in text for code in ALTERED_CODES):
        return Altered(Reason.VERIFICATION_FAILED, f"{uri} arrived altered at the store")
    if "notimplemented" in text or "501 not implemented" in text:
        return Failure(Reason.STORAGE_UNSUPPORTED, f"{uri}: the store lacks this operation")
    return Failure(Reason.STORAGE_UNAVAILABLE, f"the store did not answer for {uri} ({field})")

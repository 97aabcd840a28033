"""What obstore raises, in the words of the job.

Its text holds the store's whole answer, and with it key id and session token where a signature was
refused: of that a status and S3's error code are told, and nothing is chained to the failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PreconditionError,
    UnauthenticatedError,
)

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.process.ending import is_disk_full, node_limit
from finetune_trainer.process.errors import Failure, is_panic
from finetune_trainer.store.answers import Answer, Kind
from finetune_trainer.store.buckets import DEFAULT_REGION

NOT_SENDABLE = re.compile(  # of an address, a host or a header
    "invalid(uri|header|port|ipv4|ipv6|domain)|idnaerror|emptyhost|relativeurl", re.IGNORECASE
)
NO_IDENTITY = (
    "169.254.169.254",
    "169.254.170.",  # of EKS and ECS
    "metadata endpoint",
    "missing accesskeyid",
    "missing secretaccesskey",
    "failed to read token file",
    "performing post redacted",  # a request to STS
)
NOT_S3 = ("unable to extract metadata", "invalid list response", "invalid multipart response")
TROUBLES = (  # of connections: obstore's words, and what they mean
    ("dns error", "its host's name is not known in the cluster"),
    ("connectionrefused", "nothing listens at its address"),
    ("invalidcontenttype", "its port speaks http, not https"),
    ("invalidcertificate", "its certificate is not trusted"),
)
REMEDIES = {  # by the code of a refusal
    "InvalidAccessKeyId": f"it does not know this {CredentialKey.ACCESS_KEY_ID}",
    "SignatureDoesNotMatch": f"{CredentialKey.SECRET_ACCESS_KEY} is not the one of this "
    f"{CredentialKey.ACCESS_KEY_ID}",
    "InvalidToken": f"{CredentialKey.SESSION_TOKEN} is damaged, or of other keys",
    "RequestTimeTooSkewed": "the node's clock is wrong; set it",
    "AccessDenied": "allow it to read, write, list and delete there, as far as the field asks",
}


class Expired(Failure):
    """The session token was good once; the next one may be on its way."""


class Altered(Failure):
    """The store got something else than was sent, and refused it."""


@dataclass(frozen=True)
class Place:
    """What is asked for: a URI, the field of the job it stands in, and as whom it is asked for."""

    uri: str
    field: str
    not_found: Reason
    has_keys: bool = True  # in the Secret that the field's credentialsSecretRef names

    @property
    def secret(self) -> str:
        """Return the Secret, by the field that names it."""
        return f"the Secret of {self.field}.credentialsSecretRef"

    @property
    def identity(self) -> str:
        """Return who asks."""
        if self.has_keys:
            return f"the keys of {self.secret}"
        return f"the pod's ServiceAccount ({self.field}.credentialsSecretRef gives no keys)"


@contextmanager
def translated(
    place: Place, *, missing_is_failure: bool = True, conditional: bool = False
) -> Iterator[None]:
    """Raise obstore's errors about a place as Failures.

    The lost condition of a conditional request passes unchanged, and so does FileNotFoundError
    unless that is a failure.
    """
    try:
        yield
    except (PreconditionError, AlreadyExistsError) as error:
        if conditional:
            raise
        raise _answered(place, Answer.of(error)) from None
    except FileNotFoundError:
        if not missing_is_failure:
            raise
        raise Failure(place.not_found, f"{place.uri} does not exist ({place.field})") from None
    except NotSupportedError:
        raise _unsupported(place) from None
    except (BaseError, ValueError, OSError) as error:
        answer = Answer.of(error)
        raise (_answered(place, answer) if answer else _unanswered(place, error)) from None
    except BaseException as error:
        if not is_panic(error):
            raise
        raise _panicked(place, str(error)) from None


def _answered(place: Place, answer: Answer) -> Failure:
    """Return what the store's refusal means."""
    uri = place.uri
    match answer.kind:
        case Kind.EXPIRED:
            whose = place.secret if place.has_keys else place.identity
            what = f"the store refused access to {uri} ({answer}): the session token of"
            return Expired(Reason.ACCESS_DENIED, f"{what} {whose} has expired")
        case Kind.DENIED:
            what = f"the store refused access to {uri} ({answer}) with {place.identity}"
            remedy = REMEDIES.get(answer.code or "")
            return Failure(Reason.ACCESS_DENIED, f"{what}: {remedy}" if remedy else what)
        case Kind.REGION:
            return _another_region(place)
        case Kind.MISSING:
            return Failure(place.not_found, f"{uri} does not exist ({place.field})")
        case Kind.FULL:
            what = f"the store has no space left for {uri} ({answer})"
            return Failure(Reason.STORAGE_UNAVAILABLE, f"{what}: raise its quota, or delete there")
        case Kind.ALTERED:
            return Altered(Reason.VERIFICATION_FAILED, f"{uri} arrived altered at the store")
        case Kind.UNSUPPORTED:
            return _unsupported(place)
        case Kind.PASSING:
            return Failure(
                Reason.STORAGE_UNAVAILABLE,
                f"the store can not serve {uri} now ({answer}; {place.field})",
            )
        case Kind.REFUSED:
            return Failure(
                Reason.STORAGE_REFUSED,
                f"the store refused the request for {uri} ({answer}; {place.field}), made with "
                f"{place.identity}",
            )


def _unanswered(place: Place, error: BaseException) -> Failure:
    """Tell apart what obstore calls generic, and what this machine's disk says."""
    uri, text = place.uri, str(error).lower()
    if limit := node_limit(text):
        return limit
    if is_disk_full(error):
        return Failure(Reason.DISK_FULL, f"no space left for {uri}")
    if isinstance(error, PermissionError) or "os error 13" in text:
        return Failure(
            Reason.ACCESS_DENIED,
            f"the pod's user may not read or write {uri} ({place.field}); see its owner and mode",
        )
    if any(words in text for words in NO_IDENTITY):
        return Failure(
            Reason.ACCESS_DENIED,
            f"no credentials for {uri}: set {place.field}.credentialsSecretRef, or give the pod's "
            "ServiceAccount an identity",
        )
    if isinstance(error, UnauthenticatedError):  # obstore got no keys from us
        return Failure(
            Reason.ACCESS_DENIED,
            f"{uri} ({place.field}) can not be asked for with {place.identity}",
        )
    if "incorrectly configured region" in text:  # a redirect that names no place
        return _another_region(place)
    if any(words in text for words in NOT_S3):
        return Failure(
            Reason.STORAGE_REFUSED,
            f"what answers for {uri} is no S3 server: set {CredentialKey.ENDPOINT_URL} in "
            f"{place.secret} to the address of its API, not of its console",
        )
    return _unreached(place, text)


def _unreached(place: Place, text: str) -> Failure:
    trouble = next((meaning for words, meaning in TROUBLES if words in text), None)
    what = f"the store did not answer for {place.uri} ({place.field})"
    if trouble is None:
        return Failure(Reason.STORAGE_UNAVAILABLE, what)
    remedy = f"see {CredentialKey.ENDPOINT_URL} in {place.secret}"
    if "certificate" in trouble:
        remedy = f"put its authority into {CredentialKey.CA_CERTIFICATE} of {place.secret}"
    return Failure(Reason.STORAGE_UNAVAILABLE, f"{what}: {trouble}; {remedy}")


def _another_region(place: Place) -> Failure:
    return Failure(
        Reason.ACCESS_DENIED,
        f"the bucket of {place.uri} is in another region: set {CredentialKey.REGION} in "
        f"{place.secret}; where nothing says it, {DEFAULT_REGION} is asked",
    )


def _unsupported(place: Place) -> Failure:
    return Failure(Reason.STORAGE_UNSUPPORTED, f"{place.uri}: the store lacks this operation")


def _panicked(place: Place, text: str) -> Failure:
    """Return what a panic means; its text names a kind of error and no value."""
    if limit := node_limit(text.lower()):
        return limit
    if NOT_SENDABLE.search(text):
        return Failure(
            Reason.CREDENTIALS_INVALID,
            f"no request for {place.uri} can be made of what {place.secret} and the pod's AWS_ "
            "variables hold",
        )
    return Failure(
        Reason.TRAINER_ERROR, f"obstore panicked at {place.uri}; the pod's log has its text"
    )

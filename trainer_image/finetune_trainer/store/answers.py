"""What a store answered: status and S3's error code, and what they mean.

The codes are those of AWS, MinIO (XMinio...), Ceph and SeaweedFS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

STATUS = re.compile(r"non-2xx status code: (\d{3})")
CODE = re.compile(r"<Code>([A-Za-z][A-Za-z0-9.]{1,63})</Code>")


class Kind(Enum):
    """What an answer means for the job."""

    DENIED = auto()
    EXPIRED = auto()
    REGION = auto()
    MISSING = auto()
    FULL = auto()
    ALTERED = auto()
    UNSUPPORTED = auto()
    PASSING = auto()
    REFUSED = auto()


CODES = {
    "ExpiredToken": Kind.EXPIRED,
    "ExpiredTokenException": Kind.EXPIRED,
    "TokenRefreshRequired": Kind.EXPIRED,
    "AccessDenied": Kind.DENIED,
    "AllAccessDisabled": Kind.DENIED,
    "InvalidAccessKeyId": Kind.DENIED,
    "InvalidToken": Kind.DENIED,
    "SignatureDoesNotMatch": Kind.DENIED,
    "RequestTimeTooSkewed": Kind.DENIED,
    "PermanentRedirect": Kind.REGION,
    "AuthorizationHeaderMalformed": Kind.REGION,
    "IllegalLocationConstraintException": Kind.REGION,
    "NoSuchBucket": Kind.MISSING,
    "NoSuchKey": Kind.MISSING,
    "NoSuchUpload": Kind.PASSING,  # the store gave it up: the next try begins another
    "BadDigest": Kind.ALTERED,
    "XAmzContentSHA256Mismatch": Kind.ALTERED,
    "XMinioContentSHA256Mismatch": Kind.ALTERED,
    "XAmzContentChecksumMismatch": Kind.ALTERED,
    "NotImplemented": Kind.UNSUPPORTED,
    # Refusals by their status, and yet they pass.
    "RequestTimeout": Kind.PASSING,
    "IncompleteBody": Kind.PASSING,
    "OperationAborted": Kind.PASSING,
    "ConditionalRequestConflict": Kind.PASSING,
    "SlowDown": Kind.PASSING,
    "SlowDownRead": Kind.PASSING,
    "SlowDownWrite": Kind.PASSING,
}
STATUSES = {
    301: Kind.REGION,
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.MISSING,
    408: Kind.PASSING,
    409: Kind.PASSING,
    412: Kind.PASSING,
    425: Kind.PASSING,
    429: Kind.PASSING,
    501: Kind.UNSUPPORTED,
    507: Kind.FULL,
}
# Ceph's QuotaExceeded is a 403; XMinioAdminBucketQuotaExceeded a 400, XMinioStorageFull a 507.
FULL = re.compile("quota|storagefull|insufficientstorage|storagelimit", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """Status and code, so far as the text of an error has them."""

    status: int | None
    code: str | None

    @classmethod
    def of(cls, error: BaseException) -> Answer:
        """Read an error of obstore's: the status is its own word, the code the store's."""
        text = str(error)
        status, code = STATUS.search(text), CODE.search(text)
        return cls(int(status[1]) if status else None, code[1] if code else None)

    def __bool__(self) -> bool:
        """Tell whether there was an answer at all."""
        return self.status is not None or self.code is not None

    def __str__(self) -> str:
        """Return what a message says of it."""
        return " ".join(str(part) for part in (self.status, self.code) if part is not None)

    @property
    def kind(self) -> Kind:
        """Return what it means."""
        if self.code is not None and FULL.search(self.code):
            return Kind.FULL
        if self.code in CODES:
            return CODES[self.code]
        if self.status is None or self.status >= 500:
            return STATUSES.get(self.status or 0, Kind.PASSING)
        return STATUSES.get(self.status, Kind.REFUSED)

"""What a store answers, and what answers in its place, in the words of the job."""

from __future__ import annotations

import resource
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_local.s3 import S3Server
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.storage import CHUNK_BYTES, Role, Store
from support.storage.fault_proxy import Answer, FaultProxy
from support.storage.s3_server import write_keys

KEY_ID, TOKEN = "AKIACANARY0000000000", "session-token-canary"
# As AWS answers a signature that it does not come to itself.
SIGNATURE = Answer(
    403,
    "SignatureDoesNotMatch",
    f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256</StringToSign>"
    f"<CanonicalRequest>x-amz-security-token:{TOKEN}</CanonicalRequest>",
)
REQUESTS: dict[str, Callable[[Store, Path], object]] = {
    "list": lambda store, file: store.list(),
    "get": lambda store, file: store.read("x"),
    "put": lambda store, file: store.write("x", b"1"),
    "parts": lambda store, file: store.upload("x", file),
    "condition": lambda store, file: store.write_if("x", b"1", None),
    "delete": lambda store, file: store.delete("x"),
}

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def store(uri: str, secret: str) -> Store:
    return Store(uri, Role.OUTPUT, secret)


def failure_of(store: Store, request: str, tmp_path: Path) -> Failure:
    """Return what a request ends with, of whose traceback nothing secret can be read."""
    file = tmp_path / "large"
    file.write_bytes(bytes(CHUNK_BYTES + 1))
    with pytest.raises(Failure) as caught:
        REQUESTS[request](store, file)
    told = "".join(traceback.format_exception(caught.value))
    assert KEY_ID not in told
    assert TOKEN not in told
    assert store.uri in caught.value.message
    return caught.value


@pytest.mark.parametrize("request_", list(REQUESTS))
def test_an_answer_with_keys_in_it_is_told_by_its_code_alone(
    proxy: FaultProxy, store: Store, request_: str, tmp_path: Path
) -> None:
    proxy.fail(".*", SIGNATURE)
    failure = failure_of(store, request_, tmp_path)
    assert failure.reason is Reason.ACCESS_DENIED
    assert "(403 SignatureDoesNotMatch) with the keys of the Secret of spec.output" in str(failure)
    assert "AWS_SECRET_ACCESS_KEY is not the one of this AWS_ACCESS_KEY_ID" in str(failure)


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (Answer(403, "InvalidAccessKeyId"), Reason.ACCESS_DENIED, "does not know this AWS_ACC"),
        (Answer(403, "AccessDenied"), Reason.ACCESS_DENIED, "allow it to read, write"),
        (Answer(403, "RequestTimeTooSkewed"), Reason.ACCESS_DENIED, "the node's clock is wrong"),
        (Answer(400, "InvalidToken"), Reason.ACCESS_DENIED, "AWS_SESSION_TOKEN is damaged"),
        (Answer(400, "ExpiredToken"), Reason.ACCESS_DENIED, "has expired"),
        (Answer(401), Reason.ACCESS_DENIED, "(401) with the keys"),
        (Answer(403), Reason.ACCESS_DENIED, "(403) with the keys"),
        (Answer(301), Reason.ACCESS_DENIED, "another region: set AWS_REGION in the Secret"),
        (Answer(301, "PermanentRedirect"), Reason.ACCESS_DENIED, "another region"),
        (Answer(400, "AuthorizationHeaderMalformed"), Reason.ACCESS_DENIED, "another region"),
        (Answer(404, "NoSuchBucket"), Reason.OUTPUT_NOT_FOUND, "does not exist (spec.output)"),
        (Answer(404), Reason.OUTPUT_NOT_FOUND, "does not exist (spec.output)"),
        (Answer(400, "InvalidBucketName"), Reason.STORAGE_REFUSED, "(400 InvalidBucketName"),
        (Answer(405), Reason.STORAGE_REFUSED, "(405; spec.output)"),
        (Answer(501), Reason.STORAGE_UNSUPPORTED, "lacks this operation"),
        (Answer(501, "NotImplemented"), Reason.STORAGE_UNSUPPORTED, "lacks this operation"),
        (Answer(403, "QuotaExceeded"), Reason.STORAGE_UNAVAILABLE, "no space left"),
        (Answer(400, "XMinioAdminBucketQuotaExceeded"), Reason.STORAGE_UNAVAILABLE, "raise its q"),
        (Answer(507, "XMinioStorageFull"), Reason.STORAGE_UNAVAILABLE, "no space left"),
        (Answer(429, "SlowDown"), Reason.STORAGE_UNAVAILABLE, "(429 SlowDown"),
        (Answer(503, "SlowDownWrite"), Reason.STORAGE_UNAVAILABLE, "(503 SlowDownWrite"),
        (Answer(500, "InternalError"), Reason.STORAGE_UNAVAILABLE, "(500 InternalError"),
        (Answer(400, "RequestTimeout"), Reason.STORAGE_UNAVAILABLE, "(400 RequestTimeout"),
        (Answer(409, "OperationAborted"), Reason.STORAGE_UNAVAILABLE, "(409 OperationAborted"),
        (Answer(412), Reason.STORAGE_UNAVAILABLE, "(412"),
    ],
    ids=lambda value: f"{value.status}{value.code}" if isinstance(value, Answer) else None,
)
@pytest.mark.parametrize("request_", ["list", "put"])
def test_an_answer_is_told_by_status_code_and_remedy(
    proxy: FaultProxy,
    store: Store,
    answer: Answer,
    reason: Reason,
    words: str,
    request_: str,
    tmp_path: Path,
) -> None:
    proxy.fail(".*", answer)
    failure = failure_of(store, request_, tmp_path)
    assert failure.reason is reason
    assert words in failure.message
    assert "did not answer" not in failure.message


def test_who_asks_without_keys_is_the_serviceaccount(
    server: S3Server, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's identity reaches obstore by variables; the Secret may hold address and CA alone."""
    secret = write_keys(tmp_path / "secret", server, AWS_ENDPOINT_URL=proxy.endpoint)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, (tmp_path / "secret" / key).read_text().strip())
        (tmp_path / "secret" / key).unlink()
    store = Store(f"s3://faults/{tmp_path.name}", Role.DATA, secret)
    store.write("x", b"1")
    assert store.read("x") == b"1"
    assert all(line.endswith(server.access.access_key) for line in proxy.requests)
    proxy.fail(".*", Answer(403, "AccessDenied"))
    with pytest.raises(Failure, match="with the pod's ServiceAccount") as caught:
        store.read("x")
    assert "the keys of" not in caught.value.message
    proxy.heal()
    proxy.fail(".*", Answer(400, "ExpiredToken"))
    with pytest.raises(Failure, match=r"token of the pod's ServiceAccount .* has expired"):
        store.read("x")


def test_a_pod_without_any_identity_is_told_of_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/none")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(Failure, match="no credentials for s3://b/p") as caught:
        Store("s3://b/p", Role.DATA).list()
    assert caught.value.reason is Reason.ACCESS_DENIED
    assert "set spec.data.credentialsSecretRef, or give the pod's ServiceAccount" in str(
        caught.value
    )


@pytest.mark.parametrize("address", ["minio:9000", "http://10.0.0.256:9000", "http://xn--a:9000"])
def test_a_panic_is_a_failure_of_the_job(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore panics at an address that it was given past the Secret."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(Failure, match="the pod's AWS_ variables") as caught:
        Store("s3://b/p", Role.DATA).write("x", b"")
    assert caught.value.reason is Reason.CREDENTIALS_INVALID


def test_files_that_the_node_does_not_let_open_are_no_outage(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    store = Store("s3://b/p", Role.DATA)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(Failure, match="RLIMIT_NOFILE") as caught:
            store.list()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.reason is Reason.NODE_LIMIT

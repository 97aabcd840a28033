"""What a Secret's values must be, each named by its key; and a Secret without keys."""

from __future__ import annotations

import base64
import os
import ssl
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.credentials import BucketAccess, MountedKeys, read_key
from finetune_trainer.store.hub import model_repository
from finetune_trainer.store.storage import Role, Store

CANARY = "canary55"
GOOD = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalr/XUtnFEMI+K7MDENG=",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
}


def secret(directory: Path, values: dict[str, str]) -> str:
    directory.mkdir(exist_ok=True)
    for file in directory.iterdir():
        file.unlink()
    for name, value in values.items():
        (directory / name).write_bytes(value.encode("latin-1"))
    return str(directory)


def refused(directory: str, role: Role = Role.OUTPUT) -> str:
    """Return the message that a store with the Secret is refused with."""
    with pytest.raises(Failure) as caught:
        Store("s3://bucket/path", role, directory)
    assert caught.value.reason is Reason.CREDENTIALS_INVALID
    told = "".join(traceback.format_exception(caught.value))
    assert CANARY not in told
    return caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "AWS_ENDPOINT_URL",
            "minio:9000",
            "has no scheme: write http://minio:9000 or https://minio:9000",
        ),
        ("AWS_ENDPOINT_URL", "minio", "write http://minio or"),
        ("AWS_ENDPOINT_URL", "http:/minio:9000", "write http://minio:9000 or"),
        ("AWS_ENDPOINT_URL", "minio{x}", "write http://HOST:PORT or"),
        ("AWS_ENDPOINT_URL", '"http://minio:9000"', "is in quotes"),
        ("AWS_ENDPOINT_URL", "http://minio :9000", "holds a space"),
        ("AWS_ENDPOINT_URL", "http://minio:99999", "has a port"),
        ("AWS_ENDPOINT_URL", "http://minio:9000x", "has a port"),
        ("AWS_ENDPOINT_URL", "http://[::1", "has a port or an IPv6 address"),
        ("AWS_ENDPOINT_URL", "http://10.0.0.256:9000", "has an IPv4 address"),
        ("AWS_ENDPOINT_URL", "http://10.0.0.:9000", "has an IPv4 address"),
        ("AWS_ENDPOINT_URL", "http://", "has no host"),
        ("AWS_ENDPOINT_URL", "http://:9000", "has no host"),
        ("AWS_ENDPOINT_URL", "http://{minio}", "has no host"),
        ("AWS_ENDPOINT_URL", "s3://bucket", "begins with neither http:// nor https://"),
        ("AWS_ENDPOINT_URL", f"http://minio:9000/?x={CANARY}", "has a query"),
        ("AWS_ENDPOINT_URL", f"http://minio:9000/#{CANARY}", "has a query"),
        ("AWS_ENDPOINT_URL", f"http://user:{CANARY}@minio:9000", "holds a user or a password"),
        ("AWS_ENDPOINT_URL", f"user:{CANARY}@minio:9000", "holds a user or a password"),
        ("AWS_ENDPOINT_URL", "http://m\xfcnio", "outside ASCII"),
        ("AWS_ACCESS_KEY_ID", f"{CANARY}\n{CANARY}", "a line break"),
        ("AWS_ACCESS_KEY_ID", f"'{CANARY}'", "is in quotes"),
        ("AWS_ACCESS_KEY_ID", f"{CANARY}\x7f{CANARY}", "a control character"),
        ("AWS_ACCESS_KEY_ID", f"AWS_ACCESS_KEY_ID={CANARY}", "begins with AWS_ACCESS_KEY_ID="),
        ("AWS_SECRET_ACCESS_KEY", f"{CANARY} {CANARY}", "holds a space"),
        ("AWS_SECRET_ACCESS_KEY", f"{CANARY}\xff", "outside ASCII"),
        ("AWS_SESSION_TOKEN", f"{CANARY}\r\n{CANARY}", "a line break"),
        ("AWS_REGION", "eu west", "holds a space"),
        ("AWS_REGION", "eu/west", "is no region"),
        ("ca.crt", CANARY, "holds no certificate in PEM"),
        ("ca.crt", "\xff\xfe\x00", "holds no certificate in PEM"),
        (
            "ca.crt",
            f"-----BEGIN CERTIFICATE-----\n{CANARY}=\n-----END CERTIFICATE-----\n",
            "holds no certificate in PEM",
        ),
        (
            "ca.crt",
            base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA").decode(),
            "is encoded in base64 twice",
        ),
    ],
)
def test_a_value_that_can_not_be_is_named_by_its_key_and_not_shown(
    tmp_path: Path, key: str, value: str, words: str
) -> None:
    message = refused(secret(tmp_path / "s", {**GOOD, key: value}))
    assert message.startswith(f"the Secret of spec.output.credentialsSecretRef: {key} ")
    assert words in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "a"}, "it has no AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": CANARY}, "it has no AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": CANARY}, "it has no AWS_ACCESS_KEY_ID"),
        ({"AWS_SESSION_TOKEN": CANARY}, "it has no AWS_ACCESS_KEY_ID"),
        ({"accessKey": "a", "secretKey": CANARY}, "it holds accessKey, secretKey, and none of"),
        ({}, "it is empty, and none of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_secret_that_lacks_a_key_is_named(
    tmp_path: Path, values: dict[str, str], words: str
) -> None:
    message = refused(secret(tmp_path / "s", values), Role.MODEL)
    assert message.startswith("the Secret of spec.model.credentialsSecretRef: ")
    assert words in message


def test_what_surrounds_a_value_is_no_part_of_it(tmp_path: Path) -> None:
    values = {"AWS_ACCESS_KEY_ID": " AKIA\r\n", "AWS_SECRET_ACCESS_KEY": "s=/+\n"}
    directory = secret(tmp_path / "s", {**GOOD, **values})
    assert MountedKeys(directory, "spec.output.credentialsSecretRef").read() == (
        *("AKIA", "s=/+"),
        None,
    )
    Store("s3://bucket/path", Role.OUTPUT, directory)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.example.com",
        "http://minio.ns.svc:9000/",
        "HTTP://10.0.0.1:9000",
        "http://[::1]:9",
        "http://[::ffff:10.0.0.1]:9000",
    ],
)
def test_an_address_is_taken_as_it_is_written(tmp_path: Path, endpoint: str) -> None:
    directory = secret(tmp_path / "s", {**GOOD, "AWS_ENDPOINT_URL": endpoint})
    field = Role.OUTPUT.credentials_field
    assert BucketAccess.read(directory, field).endpoint == endpoint
    Store("s3://bucket/path", Role.OUTPUT, directory)


def test_what_editors_and_bundles_put_around_certificates_is_no_part_of_them(
    tmp_path: Path,
) -> None:
    first, second = (trustme.CA().cert_pem.bytes() for _ in range(2))
    around = b"\xef\xbb\xbf" + first.replace(b"\n", b"\r\n") + "Autorité\n".encode() + second
    directory = secret(tmp_path / "s", {**GOOD, "ca.crt": around.decode("latin-1")})
    Store("s3://bucket/path", Role.OUTPUT, directory)
    authorities = BucketAccess.read(directory, Role.OUTPUT.credentials_field).certificate
    trusted = ssl.create_default_context(cadata=authorities).get_ca_certs()
    assert sum("trustme" in str(one["subject"]) for one in trusted) == 2


def test_a_secret_without_keys_leaves_the_serviceaccount_to_speak(tmp_path: Path) -> None:
    directory = secret(tmp_path / "s", {"AWS_REGION": "eu-central-1", "HF_TOKEN": "hf_x"})
    access = BucketAccess.read(directory, Role.OUTPUT.credentials_field)
    assert access == BucketAccess(region="eu-central-1")


def test_keys_of_two_generations_are_not_mixed(tmp_path: Path) -> None:
    """The kubelet swaps all files at once, here after the first of them was read."""
    mount, fields = tmp_path / "s", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for generation in ("old", "new"):
        secret(tmp_path / generation, {name: f"{generation}-{name}" for name in fields})
    slow = tmp_path / "old" / "AWS_SECRET_ACCESS_KEY"
    slow.unlink()
    os.mkfifo(slow)
    mount.mkdir()
    for name in fields:
        (mount / name).symlink_to(f"..data/{name}")
    (mount / "..data").symlink_to(tmp_path / "old")

    def swap() -> None:
        with slow.open("w") as pipe:  # once it is opened to be read
            (mount / "..next").symlink_to(tmp_path / "new")
            (mount / "..next").rename(mount / "..data")
            pipe.write("old-AWS_SECRET_ACCESS_KEY")

    with ThreadPoolExecutor(1) as kubelet:
        swapped = kubelet.submit(swap)
        keys = MountedKeys(str(mount), "spec.output.credentialsSecretRef").read()
        swapped.result()
    assert keys == ("new-AWS_ACCESS_KEY_ID", "new-AWS_SECRET_ACCESS_KEY", None)


def test_keys_that_go_bad_under_a_run_are_named(tmp_path: Path) -> None:
    directory = secret(tmp_path / "s", GOOD)
    store = Store("s3://bucket/path", Role.OUTPUT, directory)
    secret(tmp_path / "s", {**GOOD, "AWS_SECRET_ACCESS_KEY": f"{CANARY} {CANARY}"})
    with pytest.raises(Failure, match="AWS_SECRET_ACCESS_KEY holds a space") as caught:
        store.list()
    assert caught.value.reason is Reason.CREDENTIALS_INVALID


def test_a_hub_token_is_checked_too(tmp_path: Path) -> None:
    directory = secret(tmp_path / "s", {"HF_TOKEN": f'"{CANARY}"'})
    with pytest.raises(Failure) as caught:
        model_repository("hf://org/name", None, directory)
    assert caught.value.message == (
        "the Secret of spec.model.credentialsSecretRef: HF_TOKEN is in quotes: remove them "
        "(kubectl's --from-env-file keeps them)"
    )


def test_a_key_that_is_not_there_is_none(tmp_path: Path) -> None:
    directory = secret(tmp_path / "s", {"HF_TOKEN": "\n"})
    for key in (CredentialKey.HF_TOKEN, CredentialKey.REGION):
        assert read_key(directory, key, "spec.model.credentialsSecretRef") is None
    assert read_key(None, CredentialKey.HF_TOKEN, "spec.model.credentialsSecretRef") is None

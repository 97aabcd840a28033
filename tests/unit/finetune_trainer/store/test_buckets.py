"""In which region a bucket is asked for, and that a guess is told of."""

from pathlib import Path
from uuid import uuid4

import pytest

from finetune_trainer.store.buckets import open_bucket
from finetune_trainer.store.credentials import BucketAccess

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
ENDPOINT = {"AWS_ENDPOINT_URL": "http://minio:9000"}
GUESS = "neither the Secret nor the pod says AWS_REGION; s3://{} is asked for in us-east-1"


@pytest.mark.parametrize("keys", [KEYS, {"HF_TOKEN": "x"}], ids=["keys", "ServiceAccount"])
@pytest.mark.parametrize(
    ("more", "environment", "region", "guessed"),
    [
        ({"AWS_REGION": "eu-west-1"}, {"AWS_REGION": "eu-north-1"}, "eu-west-1", False),
        ({}, {"AWS_REGION": "eu-north-1"}, "eu-north-1", False),
        ({}, {"AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1", False),
        ({}, {"AWS_REGION": ""}, "us-east-1", True),
        ({}, {}, "us-east-1", True),
        (ENDPOINT, {}, "us-east-1", False),
    ],
)
def test_the_region_is_the_secrets_else_the_pods_else_a_guess(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    keys: dict[str, str],
    more: dict[str, str],
    environment: dict[str, str],
    region: str,
    guessed: bool,
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, value in {**keys, **more}.items():
        (tmp_path / name).write_text(value)
    access, bucket = BucketAccess.read(str(tmp_path), "spec.output"), uuid4().hex
    for _ in range(2):  # a model's is opened for each of its files, and told of once
        assert open_bucket(bucket, access).config["region"] == region
    assert caplog.messages == ([GUESS.format(bucket)] if guessed else [])

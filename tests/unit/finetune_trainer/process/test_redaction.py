"""What passes keeps its words and loses its secrets."""

from __future__ import annotations

import html
import io
import json
import logging
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from finetune_contract.layout import Credentials
from finetune_contract.reasons import Reason
from finetune_trainer.process.ending import failed
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.redaction import RedactedStream, Redaction

SECRET = 'wJalr/XUtn+"q"=='
CANARY = "canary"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    directory = tmp_path / "secret"
    directory.mkdir()
    (directory / "AWS_SECRET_ACCESS_KEY").write_text(f"{SECRET}\n")
    (directory / "AWS_REGION").write_text("eu-central-1")
    (directory / "AWS_ENDPOINT_URL").write_text("http://minio:9000")
    (directory / "short").write_text("the")
    return directory


@pytest.fixture
def redaction(secret: Path) -> Redaction:
    redaction = Redaction()
    redaction.watch(Credentials(output=str(secret)))
    return redaction


def test_what_a_secret_holds_is_taken_out_however_it_is_written(redaction: Redaction) -> None:
    forms = (SECRET, json.dumps(SECRET), quote(SECRET), quote(SECRET, safe=""))
    said = redaction.text(f"the key is {' '.join(forms)} in eu-central-1 at http://minio:9000")
    assert said == 'the key is *** "***" *** *** in eu-central-1 at http://minio:9000'
    lower = re.sub("%..", lambda escaped: escaped[0].lower(), quote(SECRET, safe=""))
    coded = [b64encode(f"{SECRET}{end}".encode()).decode() for end in ("", "\n")]
    for form in (html.escape(SECRET), lower, *coded):
        assert redaction.text(f"<{form}>") == "<***>"


def test_a_password_is_taken_out_of_forms_and_of_what_python_shows(
    secret: Path, redaction: Redaction
) -> None:
    password = 'it\'s a "pass\\word"'
    (secret / "MLFLOW_TRACKING_PASSWORD").write_text(password)
    assert redaction.text(f"p={quote_plus(password)}&x") == "p=***&x"
    assert redaction.text(f"{ {'p': password} }") == "{'p': '***'}"


def test_a_secret_of_several_lines_is_taken_out_line_by_line(
    secret: Path, redaction: Redaction
) -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0B", "AQ=="]
    (secret / "key.json").write_text("\n".join(["{", *(f"  {line}" for line in lines), "}"]))
    said = [redaction.text(f"{{ {line}\n") for line in lines]
    assert said == ["{ ***\n", "{ ***\n", "{ AQ==\n"]


def test_every_part_of_the_job_has_secrets(tmp_path: Path) -> None:
    of = {}
    for part in ("model", "data", "output", "tracking", "rollout", "judge"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "token").write_text(f"secret-of-{part}")
        of[part] = str(tmp_path / part)
    redaction = Redaction()
    redaction.watch(Credentials(rewards={"judge": of.pop("judge")}, **of))
    for part in (*of, "judge"):
        assert redaction.text(f"<secret-of-{part}>") == "<***>"


def test_a_renewed_secret_is_taken_out_beside_the_old_one(secret: Path) -> None:
    redaction = Redaction(look_again_seconds=0)
    redaction.watch(Credentials(output=str(secret)))
    assert redaction.text("renewed-key") == "renewed-key"
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("renewed-key")
    assert redaction.text(f"{SECRET} renewed-key") == "*** ***"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("s3://AKIA:canary@bucket/path", "s3://***@bucket/path"),
        ("https://me:canary@host:9/x", "https://***@host:9/x"),
        ("GET https://h/x?X-Amz-Signature=canary&y=1", "GET https://h/x?***&y=1"),
        ("h/x?a=1&X-Amz-Security-Token=canary%2F'", "h/x?a=1&***'"),
        ("h/x?Expires=1&Signature=canary~-&Key-Pair-Id=canary", "h/x?Expires=1&***&***"),
        ("h/x?sv=1&sig=canary%3D", "h/x?sv=1&***"),
        ("{'Authorization': 'Bearer canary.ca-_na=='}", "{'Authorization': 'Bearer ***'}"),
        ("authorization: AWS4-HMAC-SHA256 Credential=canary", "authorization: ***"),
        ("Basic Y2FuYXJ5Y2FuYXJ5", "Basic ***"),
        ("<AWSAccessKeyId>ASIA0123456789ABCDEF</AWSAccessKeyId>", "<AWSAccessKeyId>***</AWSAcce"),
        ("hf_0123456789canaryABCDEF", "***"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    assert Redaction().text(text).startswith(left)
    assert CANARY not in Redaction().text(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/org/name@main/train.jsonl",
        "file:///data/a@b.jsonl row 3: has no assistant turn",
        "step 12 loss 0.5 tokens=30 signature of forward(x)",
        "Basic training, bearer of news, Bearer understanding",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert Redaction().text(text) == text


def test_a_traceback_is_logged_without_what_it_quotes(redaction: Redaction) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(RedactedStream(written, redaction))
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        caught = (ValueError, error, error.__traceback__)
        handler.handle(logging.makeLogRecord({"msg": "failed", "exc_info": caught}))
    assert "ValueError: ***" in written.getvalue()


def test_a_result_is_whole_but_for_its_secrets(redaction: Redaction) -> None:
    failure = Failure(Reason.TRAINER_ERROR, f"it is {SECRET}")
    result = failed(failure, attempt=3, rank=1, frames=(f"a.py:3 {SECRET}",))
    words = {"message": "it is ***", "frames": ("a.py:3 ***",)}
    assert redaction.result(result) == result.model_copy(update=words)


def test_what_a_process_writes_is_passed_on_whole(
    redaction: Redaction, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Bytes that are no text too, and a last line without an end."""
    code = (
        "import sys, os; os.write(1, b'\\xff 1\\n2 ' + sys.argv[1].encode() + b'\\n3'); "
        "os.write(2, sys.argv[1].encode() + b' on stderr' + 100_000 * b'x')"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code, SECRET], stdout=pipe, stderr=pipe)
    with redaction.passing_on(process):
        process.wait()
    out, err = capfdbinary.readouterr()
    assert out == b"\xff 1\n2 ***\n3"
    assert err == b"*** on stderr" + 100_000 * b"x"

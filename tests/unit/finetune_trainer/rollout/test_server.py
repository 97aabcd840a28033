"""How a server that draws is asked: what is waited for, what ends the run, what it is shown."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from finetune_api.rewards import HttpReward
from finetune_contract.reasons import Reason
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import waits
from finetune_trainer.rollout.server import BYTES_A_TOKEN, MOST_BYTES, Limits
from support.grpo.served import (
    ASKED,
    MOST,
    Loaded,
    Served,
    draw,
    failure,
    loaded_in,
    served,
    told_until_mended,
)
from support.services.completions import CompletionsServer, serving
from support.trainer.ranks_beside import RanksBeside

COMPLETE = "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, alone: Ranks) -> Iterator[Loaded]:
    with loaded_in(tmp_path_factory.mktemp("server"), alone) as made:
        yield made


@pytest.fixture
def setup(loaded: Loaded, tmp_path: Path) -> Iterator[Served]:
    with served(loaded, tmp_path / "shared") as made:
        yield made


@pytest.mark.parametrize("failing", [LOAD, UNLOAD])
def test_a_stop_is_heard_while_the_server_does_not_load(setup: Served, failing: str) -> None:
    rollouts = setup.rollouts()
    setup.server.failures[failing] = 10**9
    asked: list[int] = []

    def stops() -> bool:
        asked.append(1)
        return len(asked) == 3

    assert rollouts.draw(ASKED, 0, stops, lambda _: None) is None
    assert not setup.server.requests
    for thread in threading.enumerate():
        if thread.name.startswith("rollout"):
            thread.join(30)  # what was under way takes its time
    setup.server.failures.clear()
    draw(rollouts)
    assert list(setup.server.adapters) == ["uid-1-a1-step-0"]


def test_a_busy_server_is_asked_again(setup: Served) -> None:
    setup.server.failures.update({COMPLETE: 4, "/v1/load_lora_adapter": 2})
    assert [len(group) for group in draw(setup.rollouts())] == [3, 2]


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
def test_a_server_that_is_away_is_waited_for_and_told(setup: Served, status: int) -> None:
    setup.server.refusal = (status, {"error": {"message": "starting"}})
    told = told_until_mended(
        setup, setup.rollouts(), lambda: setattr(setup.server, "refusal", None)
    )
    assert set(told) == {f"waits for the server of grpo.rollout.uri: {status} starting"}
    assert setup.reporter.latest.note is None


def test_a_run_that_waits_for_a_server_does_not_stand_still(setup: Served) -> None:
    setup.server.refusal = (503, "")

    def mend() -> None:
        deadline = time.monotonic() + 30
        while not waits():
            assert time.monotonic() < deadline
        setup.server.refusal = None

    assert told_until_mended(setup, setup.rollouts(), mend)


def test_a_run_that_waits_for_an_answer_does_not_stand_still(setup: Served) -> None:
    setup.server.hang, waited = threading.Event(), []

    def stops() -> bool:
        if setup.server.most_at_once and setup.server.hang and not setup.server.hang.is_set():
            waited.append(waits())
            setup.server.hang.set()
        return False

    assert setup.rollouts().draw(ASKED, 0, stops, lambda _: None) is not None
    assert waited == [True]


def test_what_other_ranks_wait_for_is_told(setup: Served) -> None:
    waits = (False, "waits for another")
    setup.ranks = RanksBeside(
        setup.ranks, lambda made: [*made, waits] if isinstance(made[0], tuple) else made
    )
    draw(setup.rollouts())
    assert setup.reporter.latest.note == "waits for another"


def test_a_server_is_waited_for_as_long_as_a_reward_is_by_default() -> None:
    assert HttpReward.model_fields["pause_seconds"].default == Limits().pause


@pytest.mark.parametrize("status", [200, 400])
def test_a_server_that_was_started_anew_gets_the_adapter_again(setup: Served, status: int) -> None:
    """It says 400 to all but the first that load it."""
    rollouts = setup.rollouts()
    before = draw(rollouts)
    setup.server.adapters.clear()
    setup.server.load_status = status
    for group, others in zip(before, draw(rollouts), strict=True):
        assert [one.tokens.tolist() for one in group] == [one.tokens.tolist() for one in others]
    assert list(setup.server.adapters) == ["uid-1-a1-step-0"]


def test_a_server_that_stays_away_is_named(setup: Served) -> None:
    setup.limits = setup.limits._replace(pause=0.05)
    setup.server.failures[COMPLETE] = 10**6
    message = failure(setup.rollouts()).message
    assert "grpo.rollout.uri" in message
    assert f"{setup.server.url}{COMPLETE}" in message
    assert "503 starting" in message


def test_no_server_at_all(setup: Served) -> None:
    setup.limits = setup.limits._replace(pause=0.05)
    setup.server.url = "http://127.0.0.1:9"
    assert "127.0.0.1:9" in failure(setup.rollouts()).message


def test_a_refusal_ends_the_run_at_once_in_the_servers_words(setup: Served) -> None:
    words = "This model's maximum context length is 8 tokens. " + "x" * 1000
    setup.server.refusal = (400, {"error": {"message": words}})
    message = failure(setup.rollouts()).message
    assert "400 This model's maximum context length is 8 tokens" in message
    assert len(message) < 500
    assert len(setup.server.requests) == 5


def test_a_server_that_loads_no_adapters_gets_a_remedy(setup: Served) -> None:
    setup.server.runtime_updates = False
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in failure(setup.rollouts()).message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("text", "is not JSON"),
        ("[" * 10_000, "nests deeper than 32"),
        ('{"choices": [{"token_ids": [1]}], "choices": []}', "says a name twice"),
        ({"choices": []}, "holds no choice"),
        ({"choices": [1]}, "holds no choice"),
        ({"choices": [[]]}, "holds no choice"),
        ({"choices": {"token_ids": [1]}}, "holds no choice"),
        ({}, "holds no choice"),
        ([], "holds no choice"),
        ("x" * 12_000_000, "the answer is larger than 1.01 MiB"),
    ],
)
def test_an_answer_without_a_choice_ends_the_run(setup: Served, answer: Any, words: str) -> None:
    setup.server.refusal = (200, answer)
    message = failure(setup.rollouts()).message
    assert words in message
    assert "grpo.rollout.uri" in message
    assert message.endswith("; it must be vLLM, or speak as it does")
    assert len(message) < 300


@pytest.mark.parametrize("status", [400, 503])
def test_a_refusal_may_say_anything(setup: Served, status: int) -> None:
    setup.limits = setup.limits._replace(pause=0.05)
    for said in ("[" * 10_000, "x" * 3_000_000, {"error": {"message": {"a": ["\x1b"]}}}, [1]):
        setup.server.refusal = (status, said)
        message = failure(setup.rollouts()).message
        assert f"{status} " in message
        assert message.isprintable()
        assert len(message) < 500


def test_an_answer_as_large_as_what_was_asked_for_is_taken(setup: Served) -> None:
    setup.server.changes = {"text": "x" * (MOST_BYTES + BYTES_A_TOKEN * (MOST - 1))}
    assert [len(group) for group in draw(setup.rollouts())] == [3, 2]


def test_an_answer_that_trickles_is_given_up(setup: Served) -> None:
    setup.limits = setup.limits._replace(pause=0.05, answer=0.5)
    setup.server.trickles = True
    assert "no answer within 0.5 s" in failure(setup.rollouts()).message


def test_redirects_are_not_followed(setup: Served) -> None:
    setup.server.refusal = (307, "")
    assert "307 Temporary Redirect" in failure(setup.rollouts()).message


def test_the_token_is_not_told_where_the_server_quotes_it(setup: Served, tmp_path: Path) -> None:
    setup.credentials = str(tmp_path)
    (tmp_path / "token").write_text("secret")
    setup.server.refusal = (400, {"error": {"message": "no key secret here"}})
    assert "400 no key … here" in failure(setup.rollouts()).message


def test_the_token_is_read_anew_and_sent(setup: Served, tmp_path: Path) -> None:
    setup.credentials = str(tmp_path)
    (tmp_path / "token").write_text("one\n")
    rollouts = setup.rollouts()
    draw(rollouts)
    assert setup.server.authorizations == {"Bearer one"}
    (tmp_path / "token").write_text("two")
    draw(rollouts)
    assert setup.server.authorizations == {"Bearer one", "Bearer two"}


@pytest.mark.parametrize(
    ("key", "content", "words"),
    [
        ("other", b"one", " has no key 'token'"),
        ("token", b"\xff\xfe", ": 'token' holds a character outside ASCII"),
        (
            "token",
            b'"key"\n',
            ": 'token' is in quotes: remove them (kubectl's --from-env-file keeps them)",
        ),
        ("token", b"Bearer key", ": 'token' begins with Bearer itself: keep what stands behind it"),
        (
            "token",
            b"key\r\nX-Evil: 1",
            ": 'token' holds a space, a line break or a control character",
        ),
        ("ca.crt", b"none", ": 'ca.crt' holds no certificate"),
    ],
)
def test_a_secret_that_can_not_be_used_is_refused_at_the_start(
    setup: Served, tmp_path: Path, key: str, content: bytes, words: str
) -> None:
    setup.credentials = str(tmp_path)
    (tmp_path / key).write_bytes(content)
    with pytest.raises(Failure) as caught:
        setup.rollouts()
    assert caught.value.reason is Reason.ACCESS_DENIED
    assert caught.value.message == f"the Secret of grpo.rollout.credentialsSecretRef{words}"


@pytest.mark.parametrize(
    ("token", "note"),
    [
        ("old", "401 "),
        ("\xff", "the Secret of grpo.rollout.credentialsSecretRef: 'tok"),
    ],
)
def test_a_token_that_is_refused_may_be_mended(
    setup: Served, tmp_path: Path, token: str, note: str
) -> None:
    setup.credentials, setup.server.tokens = str(tmp_path), {"new"}
    (tmp_path / "token").write_text("new")
    rollouts = setup.rollouts()
    (tmp_path / "token").write_text(token)
    [told, *_] = told_until_mended(setup, rollouts, lambda: (tmp_path / "token").write_text("new"))
    assert told.startswith(f"waits for the server of grpo.rollout.uri: {note}")


def test_a_private_authority_is_trusted(setup: Served, tmp_path: Path) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    setup.server = CompletionsServer()
    with serving(setup.server, tls):
        [told, *_] = told_until_mended(setup, setup.rollouts(), stop=True)
        assert "the certificate of 127.0.0.1" in told
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        setup.credentials = str(tmp_path)
        assert [len(group) for group in draw(setup.rollouts())] == [3, 2]
    assert setup.server.authorizations == {None}


def test_without_credentials_no_token_is_sent(setup: Served) -> None:
    draw(setup.rollouts())
    assert setup.server.authorizations == {None}

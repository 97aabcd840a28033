"""What the trainer asks of an OpenAI-compatible server, and what it makes of the answers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import trustme

from finetune_api.rewards import HttpReward
from finetune_contract.reasons import Reason
from finetune_trainer.distributed import Ranks
from finetune_trainer.errors import Failure
from finetune_trainer.optimizer_state import gather_weights
from finetune_trainer.progress import Reporter
from finetune_trainer.rollout import openai, rollout_engine, server
from finetune_trainer.rollout.base import Completion, Request
from finetune_trainer.rollout.sampling import sample_seed
from finetune_trainer.tokenizer import load_tokenizer
from support.completions_server import CompletionsServer, expected_tokens, serving
from support.rollout_runs import SEED, engine_of, memory, rollout_config
from support.tiny_llama import write_model

MOST = 9
SAMPLING = {"maxTokens": MOST, "temperature": 0.7, "topP": 0.9, "topK": 5, "stop": ["END"]}
ASKED = [
    Request(np.array([3, 1, 4], np.int32), (0, 5, 0), 3),
    Request(np.array([1, 5], np.int32), (0, 6, 0), 2, first=4),
]
COMPLETE = "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


class Setup:
    """A stub server and a training engine whose rollouts it draws."""

    def __init__(self, directory: Path, ranks: Ranks, engine: Any, model: Any) -> None:
        self.server = CompletionsServer()
        self.directory, self.ranks, self.engine, self.model = directory, ranks, engine, model
        self.shared = directory / "shared"
        self.credentials: str | None = None
        self.reporter = Reporter()

    def rollouts(self, **options: Any) -> Any:
        config = rollout_config(
            self.directory,
            sampling=SAMPLING,
            rollout={
                "engine": "OpenAI",
                "uri": self.server.url + "/",
                "adapterDirectory": str(self.shared),
            },
            credentials={"rollout": self.credentials} if self.credentials else {},
            **options,
        )
        tokenizer = load_tokenizer(self.directory / "model")
        return rollout_engine(
            config, self.engine, self.model, tokenizer, self.ranks, memory(), self.reporter
        )


@pytest.fixture(scope="module")
def loaded(
    tmp_path_factory: pytest.TempPathFactory, alone: Ranks
) -> Iterator[tuple[Path, Ranks, Any, Any]]:
    directory = tmp_path_factory.mktemp("openai")
    write_model(directory / "model")
    with engine_of(rollout_config(directory), alone) as (engine, model):
        yield directory, alone, engine, model


@pytest.fixture
def setup(
    loaded: tuple[Path, Ranks, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Setup]:
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(openai, "POLL_SECONDS", 0.05)
    setup = Setup(*loaded)
    setup.shared = tmp_path / "shared"
    with serving(setup.server):
        yield setup


def draw(rollouts: Any, step: int = 0) -> list[list[Completion]]:
    found = rollouts.draw(ASKED, step, lambda: False, lambda _: None)
    assert found is not None
    return found  # type: ignore[no-any-return]


def failure(rollouts: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        draw(rollouts)
    assert caught.value.reason is Reason.ROLLOUT_UNAVAILABLE
    return caught.value


def told_until_mended(
    setup: Setup, rollouts: Any, mend: Callable[[], Any] = lambda: None, *, stop: bool = False
) -> list[str]:
    """Draw; mend, or stop, once Progress tells of a wait. Return what it told."""
    told: list[str] = []

    def stops() -> bool:
        if (note := setup.reporter.latest.note) is not None:
            told.append(note)
            mend()
        return stop and bool(told)

    found = rollouts.draw(ASKED, 0, stops, lambda _: None)
    assert (found is None) == stop
    return told


def test_each_sample_is_asked_for_with_every_setting(setup: Setup) -> None:
    done: list[int] = []
    rollouts = setup.rollouts()
    found = rollouts.draw(ASKED, 0, lambda: False, done.append)
    assert sum(done) == 5
    seeds = {(tuple(r["prompt"]), r["seed"]) for r in setup.server.requests}
    wanted = [(r, r.first + index) for r in ASKED for index in range(r.samples)]
    assert seeds == {
        (tuple(r.prompt.tolist()), sample_seed(SEED, r.key, sample)) for r, sample in wanted
    }
    end = load_tokenizer(setup.directory / "model").eos_token_id
    for request in setup.server.requests:
        rest = {k: v for k, v in request.items() if k not in ("prompt", "seed")}
        assert rest == {
            "model": "uid-1-a1-step-0",
            "n": 1,
            "max_tokens": MOST,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 5,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop": ["END"],
            "stop_token_ids": sorted(openai.stop_tokens(setup.model.get_base_model(), _end(end))),
            "skip_special_tokens": False,
            "return_token_ids": True,
            "stream": False,
        }
        assert end in request["stop_token_ids"]
    for request, group in zip(ASKED, found, strict=True):
        for index, completion in enumerate(group):
            seed = sample_seed(SEED, request.key, request.first + index)
            expected = expected_tokens(request.prompt.tolist(), seed, MOST)
            assert completion.tokens.tolist() == expected
            assert completion.tokens.dtype == np.int32
            assert completion.truncated == (len(expected) == MOST)


def _end(token: int) -> Any:
    return type("Tokenizer", (), {"eos_token_id": token})


def test_the_server_gets_each_steps_adapter_and_forgets_the_last(setup: Setup) -> None:
    rollouts = setup.rollouts()
    draw(rollouts)
    [adapter] = setup.server.adapters.values()
    assert adapter["config"]["peft_type"] == "LORA"
    expected = gather_weights(setup.engine, setup.ranks)
    assert len(adapter["tensors"]) == len(expected)
    for name, tensor in adapter["tensors"].items():
        assert tensor.equal(expected[name.replace(".weight", ".default.weight")])
    draw(rollouts, step=0)
    assert setup.server.history == [("load", "uid-1-a1-step-0")]
    parameter = next(iter(setup.engine.parameters.values()))
    with torch.no_grad():
        parameter.add_(1.0)
    draw(rollouts, step=3)
    assert setup.server.history[1:] == [("load", "uid-1-a1-step-3"), ("unload", "uid-1-a1-step-0")]
    assert [path.name for path in (setup.shared / "uid-1").iterdir()] == ["a1-step-3"]
    [later] = setup.server.adapters.values()
    same = [later["tensors"][n].equal(tensor) for n, tensor in adapter["tensors"].items()]
    assert same.count(False) == 1


def test_what_a_lost_run_left_is_replaced(setup: Setup) -> None:
    draw(setup.rollouts(), step=4)
    (setup.shared / "uid-1" / "a1-step-4" / "stale").touch()
    (setup.shared / "uid-1" / ".a1-step-5").mkdir()
    draw(setup.rollouts(), step=4)
    name = "uid-1-a1-step-4"
    assert setup.server.history == [("load", name), ("unload", name), ("load", name)]
    assert [path.name for path in (setup.shared / "uid-1").iterdir()] == ["a1-step-4"]
    assert not (setup.shared / "uid-1" / "a1-step-4" / "stale").exists()


def test_what_other_attempts_had_loaded_is_forgotten(setup: Setup) -> None:
    draw(setup.rollouts(attempt=1), step=4)
    assert list(setup.server.adapters) == ["uid-1-a1-step-4"]
    draw(setup.rollouts(attempt=2), step=4)
    assert list(setup.server.adapters) == ["uid-1-a2-step-4"]
    assert [path.name for path in (setup.shared / "uid-1").iterdir()] == ["a2-step-4"]


@pytest.mark.parametrize("failing", [LOAD, UNLOAD])
def test_a_stop_is_heard_while_the_server_does_not_load(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 5.0)
    rollouts = setup.rollouts()
    setup.server.failures[failing] = 10**9
    asked: list[int] = []

    def stops() -> bool:
        asked.append(1)
        return len(asked) == 3

    assert rollouts.draw(ASKED, 0, stops, lambda _: None) is None
    assert not setup.server.requests
    setup.server.failures.clear()
    draw(rollouts)
    assert list(setup.server.adapters) == ["uid-1-a1-step-0"]


def test_a_busy_server_is_asked_again(setup: Setup) -> None:
    setup.server.failures.update({COMPLETE: 4, "/v1/load_lora_adapter": 2})
    assert [len(group) for group in draw(setup.rollouts())] == [3, 2]


def test_a_server_that_is_away_is_waited_for_and_told(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts = setup.rollouts()
    setup.server.failures[COMPLETE] = 10**9
    told = told_until_mended(setup, rollouts, setup.server.failures.clear)
    assert set(told) == {"waits for the server of grpo.rollout.uri: 503 starting"}
    assert setup.reporter.latest.note is None
    everywhere = setup.ranks.everywhere

    def beside_another(work: Any, **options: Any) -> list[Any]:
        made = everywhere(work, **options)
        return [*made, (False, "waits for another")] if isinstance(made[0], tuple) else made

    monkeypatch.setattr(setup.ranks, "everywhere", beside_another)
    draw(rollouts)
    assert setup.reporter.latest.note == "waits for another"


def test_a_server_is_waited_for_as_long_as_a_reward_is_by_default() -> None:
    assert HttpReward.model_fields["pause_seconds"].default == server.PAUSE_SECONDS


@pytest.mark.parametrize("status", [200, 400])
def test_a_server_that_was_started_anew_gets_the_adapter_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It says 400 to all but the first that load it."""
    rollouts = setup.rollouts()
    before = draw(rollouts)
    setup.server.adapters.clear()
    load = setup.server._load
    monkeypatch.setattr(setup.server, "_load", lambda *asked: (status, load(*asked)[1]))
    for group, others in zip(before, draw(rollouts), strict=True):
        assert [one.tokens.tolist() for one in group] == [one.tokens.tolist() for one in others]
    assert list(setup.server.adapters) == ["uid-1-a1-step-0"]


def test_a_server_that_stays_away_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.05)
    setup.server.failures[COMPLETE] = 10**6
    message = failure(setup.rollouts()).message
    assert "grpo.rollout.uri" in message
    assert f"{setup.server.url}{COMPLETE}" in message
    assert "503 starting" in message


def test_no_server_at_all(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.05)
    setup.server.url = "http://127.0.0.1:9"
    assert "127.0.0.1:9" in failure(setup.rollouts()).message


def test_a_refusal_ends_the_run_at_once_in_the_servers_words(setup: Setup) -> None:
    words = "This model's maximum context length is 8 tokens. " + "x" * 1000
    setup.server.refusal = (400, {"error": {"message": words}})
    message = failure(setup.rollouts()).message
    assert "400 This model's maximum context length is 8 tokens" in message
    assert len(message) < 500
    assert len(setup.server.requests) == 5


def test_a_server_that_loads_no_adapters_gets_a_remedy(setup: Setup) -> None:
    setup.server.runtime_updates = False
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in failure(setup.rollouts()).message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_ids": None}, "no token ids"),
        ({"prompt_token_ids": [1]}, "another prompt"),
        ({"token_ids": []}, "0 tokens"),
        ({"token_ids": [1] * (MOST + 1)}, "10 tokens"),
        ({"finish_reason": "abort"}, "abort"),
    ],
)
def test_an_answer_that_can_not_be_trained_on_ends_the_run(
    setup: Setup, changes: dict[str, Any], words: str
) -> None:
    setup.server.changes = changes
    assert words in failure(setup.rollouts()).message


@pytest.mark.parametrize("answer", ["text", {"choices": []}, {"choices": [1]}, {}])
def test_an_answer_without_a_choice_ends_the_run(setup: Setup, answer: Any) -> None:
    setup.server.refusal = (200, answer)
    assert "no choice" in failure(setup.rollouts()).message


def test_the_token_is_read_anew_and_sent(setup: Setup, tmp_path: Path) -> None:
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
        ("token", b"\xff\xfe", ": 'token' is no token that a header can carry"),
        ("ca.crt", b"none", ": 'ca.crt' holds no certificate"),
    ],
)
def test_a_secret_that_can_not_be_used_is_refused_at_the_start(
    setup: Setup, tmp_path: Path, key: str, content: bytes, words: str
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
    setup: Setup, tmp_path: Path, token: str, note: str
) -> None:
    setup.credentials, setup.server.tokens = str(tmp_path), {"new"}
    (tmp_path / "token").write_text("new")
    rollouts = setup.rollouts()
    (tmp_path / "token").write_text(token)
    [told, *_] = told_until_mended(setup, rollouts, lambda: (tmp_path / "token").write_text("new"))
    assert told.startswith(f"waits for the server of grpo.rollout.uri: {note}")


def test_a_private_authority_is_trusted(setup: Setup, tmp_path: Path) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    setup.server = CompletionsServer()
    with serving(setup.server, tls):
        [told, *_] = told_until_mended(setup, setup.rollouts(), stop=True)
        assert "CERTIFICATE_VERIFY_FAILED" in told
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        setup.credentials = str(tmp_path)
        assert [len(group) for group in draw(setup.rollouts())] == [3, 2]
    assert setup.server.authorizations == {None}


def test_without_credentials_no_token_is_sent(setup: Setup) -> None:
    draw(setup.rollouts())
    assert setup.server.authorizations == {None}


def test_a_stop_gives_up_what_is_under_way(setup: Setup) -> None:
    setup.server.hang = Event()
    asked: list[int] = []

    def stops() -> bool:
        asked.append(1)
        return len(asked) == 3

    assert setup.rollouts().draw(ASKED, 0, stops, lambda _: None) is None


def test_so_many_requests_are_under_way_and_no_more(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "CONCURRENCY", 2)
    found = setup.rollouts().draw(ASKED * 4, 0, lambda: False, lambda _: None)
    assert len(found) == 8
    assert 1 <= setup.server.most_at_once <= 2


def test_a_directory_that_can_not_be_written_is_named(setup: Setup) -> None:
    setup.shared.touch()
    assert "grpo.rollout.adapterDirectory" in failure(setup.rollouts()).message


def test_an_adapter_that_would_not_be_applied_is_refused(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Failure, match="it has no DoRA; use engine Builtin") as caught:
        setup.rollouts(lora={"dora": True})
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED

"""What the trainer asks of an OpenAI-compatible server, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.reasons import Reason
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.sampling import sample_seed
from finetune_trainer.step.optimizer_state import gather_weights
from support.grpo.draws import SEED
from support.grpo.served import ASKED, MOST, Loaded, Served, draw, failure, loaded_in, served
from support.services.completions import expected_tokens
from support.trainer.ranks_beside import RanksBeside


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, alone: Ranks) -> Iterator[Loaded]:
    with loaded_in(tmp_path_factory.mktemp("openai"), alone) as made:
        yield made


@pytest.fixture
def setup(loaded: Loaded, tmp_path: Path) -> Iterator[Served]:
    with served(loaded, tmp_path / "shared") as made:
        yield made


def test_each_sample_is_asked_for_with_every_setting(setup: Served) -> None:
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
            "stop_token_ids": [end],
            "skip_special_tokens": False,
            "return_token_ids": True,
            "stream": False,
        }
    for request, group in zip(ASKED, found, strict=True):
        for index, completion in enumerate(group):
            seed = sample_seed(SEED, request.key, request.first + index)
            expected = expected_tokens(request.prompt.tolist(), seed, MOST)
            assert completion.tokens.tolist() == expected
            assert completion.tokens.dtype == np.int32
            assert completion.truncated == (len(expected) == MOST)


def test_the_server_gets_each_steps_adapter_and_forgets_the_last(setup: Served) -> None:
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


def test_what_a_lost_run_left_is_replaced(setup: Served) -> None:
    draw(setup.rollouts(), step=4)
    (setup.shared / "uid-1" / "a1-step-4" / "stale").touch()
    for partial in (".a1-step-4", ".a1-step-5"):
        (setup.shared / "uid-1" / partial).mkdir()
    draw(setup.rollouts(), step=4)
    name = "uid-1-a1-step-4"
    assert setup.server.history == [("load", name), ("unload", name), ("load", name)]
    assert [path.name for path in (setup.shared / "uid-1").iterdir()] == ["a1-step-4"]
    assert not (setup.shared / "uid-1" / "a1-step-4" / "stale").exists()


def test_what_other_attempts_had_loaded_is_forgotten(setup: Served) -> None:
    draw(setup.rollouts(attempt=1), step=4)
    assert list(setup.server.adapters) == ["uid-1-a1-step-4"]
    draw(setup.rollouts(attempt=2), step=4)
    assert list(setup.server.adapters) == ["uid-1-a2-step-4"]
    assert [path.name for path in (setup.shared / "uid-1").iterdir()] == ["a2-step-4"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_ids": None}, "no token ids"),
        ({"prompt_token_ids": [1]}, "another prompt"),
        ({"token_ids": []}, "0 tokens"),
        ({"token_ids": [1] * (MOST + 1)}, "10 tokens"),
        ({"finish_reason": "abort"}, "finish_reason 'abort';"),
        ({"finish_reason": ["\n" + "x" * 100]}, "finish_reason ['\\n" + "x" * 35 + "…;"),
        ({"token_ids": {"0": 1}}, "no token ids"),
        ({"token_ids": [-1]}, "none of the base model's"),
        ({"token_ids": [2**40]}, "none of the base model's"),
        ({"token_ids": [True]}, "none of the base model's"),
        ({"token_ids": [1.5]}, "none of the base model's"),
        ({"token_ids": ["1"]}, "none of the base model's"),
    ],
)
def test_an_answer_that_can_not_be_trained_on_ends_the_run(
    setup: Served, changes: dict[str, Any], words: str
) -> None:
    setup.server.changes = changes
    assert words in failure(setup.rollouts()).message


def test_only_tokens_of_the_base_model_are_taken(setup: Served) -> None:
    known = setup.model.config.vocab_size
    setup.server.changes = {"token_ids": [0, known - 1], "finish_reason": "stop"}
    assert draw(setup.rollouts())[0][0].tokens.tolist() == [0, known - 1]
    setup.server.changes = {"token_ids": [0, known], "finish_reason": "stop"}
    assert f"none of the base model's {known}" in failure(setup.rollouts()).message


def test_a_stop_gives_up_what_is_under_way(setup: Served) -> None:
    setup.server.hang = Event()
    asked: list[int] = []

    def stops() -> bool:
        asked.append(1)
        return len(asked) == 3

    assert setup.rollouts().draw(ASKED, 0, stops, lambda _: None) is None


def test_ranks_ask_until_all_are_done(setup: Served) -> None:
    agreed: list[Any] = []

    def beside_another(made: list[Any]) -> list[Any]:
        if not isinstance(made[0], tuple):
            return made
        agreed.append(made[0])
        return [*made, (len(agreed) < 100, None)]

    setup.ranks = RanksBeside(setup.ranks, beside_another)
    draw(setup.rollouts())
    assert len(agreed) > 100


def test_so_many_requests_are_under_way_and_no_more(setup: Served) -> None:
    setup.limits = setup.limits._replace(requests=2)
    found = setup.rollouts().draw(ASKED * 4, 0, lambda: False, lambda _: None)
    assert len(found) == 8
    assert 1 <= setup.server.most_at_once <= 2


def test_a_directory_that_can_not_be_written_is_named(setup: Served) -> None:
    setup.shared.touch()
    assert "grpo.rollout.adapterDirectory" in failure(setup.rollouts()).message


def test_an_adapter_that_would_not_be_applied_is_refused(setup: Served) -> None:
    with pytest.raises(Failure, match="it has no DoRA; use engine Builtin") as caught:
        setup.rollouts(lora={"dora": True})
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED

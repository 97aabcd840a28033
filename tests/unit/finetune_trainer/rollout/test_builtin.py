"""The built-in engine: its samples depend on request and weights alone, and training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.grpo import Sampling
from finetune_contract.reasons import Reason
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout import builtin
from finetune_trainer.rollout.base import Completion, Request
from finetune_trainer.rollout.merged import mergeable_bytes
from support.grpo.draws import engine_of, requests, rollout_config, rollouts
from support.models.tiny_models import write_tiny

MOST = 12
Draw = Callable[..., list[list[Completion]] | None]


class Trained:
    """A training engine, and rollout engines on it."""

    def __init__(self, directory: Path, engine: Any, model: Any, ranks: Ranks) -> None:
        self.engine = engine
        self.model = model
        self._directory = directory
        self._ranks = ranks

    def rollouts(self, seed: int = 11, free: int = 2**30, **sampling: Any) -> Any:
        config = rollout_config(self._directory, sampling=sampling, training={"seed": seed})
        return rollouts(config, self.engine, self.model, self._ranks, free=free)

    def drawn(self, asked: Sequence[Request], **options: Any) -> list[list[Completion]]:
        found = self.rollouts(**options).draw(asked, 0, lambda: False, lambda _: None)
        assert found is not None
        return found  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["llama", pytest.param("olmo2", marks=pytest.mark.slow)])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, alone: Ranks
) -> Iterator[Trained]:
    directory = tmp_path_factory.mktemp("rollouts")
    write_tiny(request.param, directory / "model")
    config = rollout_config(directory, lora={"dropout": 0.5}, gradientCheckpointing="Always")
    with engine_of(config, alone) as (engine, model):
        yield Trained(directory, engine, model, alone)


def tokens(groups: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.tokens.tolist() for completion in group] for group in groups]


def test_each_request_gets_its_samples(trained: Trained) -> None:
    asked = requests()
    done: list[int] = []
    found = trained.rollouts().draw(asked, 0, lambda: False, done.append)
    assert [len(group) for group in found] == [request.samples for request in asked]
    assert sum(done) == sum(request.samples for request in asked)
    for group in found:
        for completion in group:
            assert completion.tokens.dtype == np.int32
            assert completion.truncated == (len(completion.tokens) == MOST)
    first = found[0]
    assert len({tuple(completion.tokens) for completion in first}) == len(first)


def test_who_else_is_asked_for_does_not_matter(trained: Trained) -> None:
    asked = requests()
    whole = tokens(trained.drawn(asked))
    assert tokens(trained.drawn(asked[::-1])) == whole[::-1]
    assert tokens(trained.drawn(asked[1:2])) == whole[1:2]
    assert tokens(trained.drawn([replace(asked[0], samples=5)]))[0][:3] == whole[0]
    assert tokens(trained.drawn([replace(asked[0], first=1, samples=2)]))[0] == whole[0][1:]


def test_little_memory_changes_no_token(trained: Trained) -> None:
    asked = [request for request in requests() if len(request.prompt) > 2][:3]
    whole = tokens(trained.drawn(asked))
    widths: list[int] = []
    embeddings = trained.model.get_base_model().get_input_embeddings()
    hook = embeddings.register_forward_pre_hook(lambda _, ids: widths.append(ids[0].shape[1]))
    try:
        assert tokens(trained.drawn(asked, free=2 * 40 * 256)) == whole
    finally:
        hook.remove()
    reads = [width for width in widths if width > 2]  # shorter ones measure what is kept, or step
    assert len(reads) > len(asked)


def test_key_seed_and_weights_decide(trained: Trained) -> None:
    asked = requests()[:2]
    found = tokens(trained.drawn(asked))
    assert tokens(trained.drawn([replace(r, key=(1, *r.key[1:])) for r in asked])) != found
    assert tokens(trained.drawn(asked, seed=12)) != found
    with trained.model.disable_adapter():
        assert tokens(trained.drawn(asked)) != found


def test_a_most_probable_token_is_that_of_the_adapted_model(trained: Trained) -> None:
    [request] = requests()[1:2]
    [[found, *_]] = trained.drawn([request], topK=1)
    ids = torch.from_numpy(np.concatenate([request.prompt, found.tokens])).long()[None]
    trained.model.eval()
    with torch.no_grad():
        logits = trained.model(input_ids=ids, use_cache=False).logits[0]
    trained.model.train()
    assert logits[len(request.prompt) - 1 : -1].argmax(-1).tolist() == found.tokens.tolist()


def test_four_bit_weights_are_drawn_with_as_they_are(tmp_path: Path, alone: Ranks) -> None:
    write_tiny("llama", tmp_path / "model", hidden_size=64)
    config = rollout_config(tmp_path, lora={"quantization": "NF4"}, sampling={"topK": 1})
    with engine_of(config, alone) as (engine, model):
        drawer = rollouts(config, engine, model, alone)
        asked = requests()[1:2]
        [[found, *_]] = drawer.draw(asked, 0, lambda: False, lambda _: None) or []
        ids = torch.from_numpy(np.concatenate([asked[0].prompt, found.tokens])).long()[None]
        model.eval()
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0]
    assert logits[len(asked[0].prompt) - 1 : -1].argmax(-1).tolist() == found.tokens.tolist()


def test_completions_end_at_end_of_turn_tokens_and_stop_texts(trained: Trained) -> None:
    asked = requests()
    whole = trained.drawn(asked)
    ending = int(whole[0][0].tokens[4])
    tokenizer = load_tokenizer(trained._directory / "model")
    text = tokenizer.decode(whole[1][0].tokens[2:4])
    generation = trained.model.get_base_model().generation_config
    before, generation.eos_token_id = generation.eos_token_id, [ending]
    try:
        found = trained.drawn(asked, stop=[text])
    finally:
        generation.eos_token_id = before
    assert found[0][0].tokens.tolist() == _until(whole[0][0], ending)
    assert len(found[1][0].tokens) <= 4
    assert text in tokenizer.decode(found[1][0].tokens)
    endings, shorter = {ending, tokenizer.eos_token_id}, 0
    for group, longer in zip(found, whole, strict=True):
        for completion, uncut in zip(group, longer, strict=True):
            count = len(completion.tokens)
            assert completion.tokens.tolist() == uncut.tokens.tolist()[:count]
            last = int(completion.tokens[-1])
            ended = last in endings or text in tokenizer.decode(completion.tokens)
            assert completion.truncated == (not ended)
            assert ended or count == MOST
            shorter += count < MOST
    assert shorter > 1


def _until(completion: Completion, ending: int) -> list[int]:
    found: list[int] = completion.tokens.tolist()
    return found[: found.index(ending) + 1]


def test_training_finds_all_as_it_was(trained: Trained) -> None:
    model, before = trained.model, trained.model.config._attn_implementation
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        assert len(trained.drawn(requests())) == len(requests())
    assert model.training
    assert model.config._attn_implementation == before
    assert all(p.equal(weights[name]) for name, p in model.named_parameters())
    assert not any(getattr(module, "merged", False) for module in model.modules())
    ids = torch.arange(6)[None]
    assert not model(input_ids=ids).logits.equal(model(input_ids=ids).logits)  # dropout
    assert model(input_ids=ids).logits.requires_grad


def test_a_stop_ends_it_and_is_asked_for_often(trained: Trained) -> None:
    asked: list[int] = []

    def stops() -> bool:
        asked.append(1)
        return len(asked) == 2

    done: list[int] = []
    assert trained.rollouts(maxTokens=60).draw(requests(), 0, stops, done.append) is None
    assert len(asked) == 2
    assert trained.model.training
    assert not any(getattr(module, "merged", False) for module in trained.model.modules())


def test_nothing_to_draw(trained: Trained) -> None:
    assert trained.drawn([]) == []


def test_logits_that_are_not_finite_end_the_run(trained: Trained) -> None:
    parameter = next(p for n, p in trained.model.named_parameters() if "lora_B" in n)
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(3e38)
    try:
        with pytest.raises(Failure, match="logits are not finite") as caught:
            trained.drawn(requests())
    finally:
        with torch.no_grad():
            parameter.copy_(before)
    assert caught.value.reason is Reason.NON_FINITE_LOSS
    assert trained.model.training


def test_the_adapter_is_merged_where_the_plan_leaves_room(
    trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    merged: list[bool] = []
    layer = next(m for m in trained.model.modules() if hasattr(m, "merged_adapters"))
    hook = layer.register_forward_pre_hook(lambda module, _: merged.append(module.merged))
    copies = mergeable_bytes(trained.model)
    caplog.set_level(logging.INFO, builtin.__name__)
    try:
        for free, told in (
            (2 * copies, "merged, and at most 0 MiB"),
            (2 * copies - 2, "beside the weights, and at most 0 MiB"),
            (2**30, f"merged, and at most {(2**30 - copies) // 2**21} MiB"),
        ):
            merged.clear()
            caplog.clear()
            trained.drawn(requests()[:1], free=free)
            assert set(merged) == {told.startswith("merged")}
            assert f"the adapter {told}" in caplog.text
    finally:
        hook.remove()


def test_what_is_kept_is_measured_of_tokens_and_rows(trained: Trained) -> None:
    rollouts = trained.rollouts()
    with rollouts._prepared() as kept:
        two_layers_of_two_heads = 2 * 2 * 2 * 8 * 4  # keys and values
        assert kept.token == two_layers_of_two_heads
        assert kept.row == 0
        assert kept.shares == (trained.model.config.model_type == "llama")


def test_a_model_that_keeps_nothing_is_refused(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts = trained.rollouts()
    monkeypatch.setattr(rollouts, "_read", lambda tokens: 0)
    with pytest.raises(Failure, match="keeps nothing of earlier tokens; take") as caught:
        rollouts.draw(requests(), 0, lambda: False, lambda _: None)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
    assert trained.model.training


def test_sampling_is_the_recipes(trained: Trained) -> None:
    assert trained.rollouts(topK=3, temperature=0.5)._sampling == Sampling(
        max_tokens=MOST, top_k=3, temperature=0.5
    )

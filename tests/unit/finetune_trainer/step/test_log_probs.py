"""Log-probabilities of learned tokens: chunked as if whole, and never the whole logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.recipe import LoraRecipe, LoraTarget, Precision
from finetune_trainer.adapter.lora import adapt
from finetune_trainer.adapter.roles import map_roles
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.model.base import empty_model, load_model
from finetune_trainer.step.log_probs import Head, LogProbModel, score, score_with, splits
from support.models.tiny_models import write_tiny
from support.models.tolerance import THERE_AND_BACK, TINY_MODEL, assert_close
from support.trainer.tensor_sizes import LargestTensor

CPU = torch.device("cpu")
LENGTHS = (9, 30, 4)
TEMPERATURE = 0.7


def encoded() -> list[EncodedRow]:
    draw = np.random.default_rng(0)
    rows = []
    for length in LENGTHS:
        learned = draw.random(length) < 0.6
        learned[0] = False
        rows.append(EncodedRow(draw.integers(3, 250, length).astype(np.int32), learned))
    return rows


def adapted(name: str, directory: Path, targets: tuple[LoraTarget, ...], **config: Any) -> Any:
    write_tiny(name, directory, **config)
    base = load_model(directory, Precision.FP32)
    model = adapt(base, LoraRecipe(rank=4, targets=targets), map_roles(base), seed=0).model
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(0, 0.05)
    return model


def expected(model: Any, rows: list[EncodedRow]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities and entropies by the model's own forward pass, a row at a time."""
    picked, entropies = [], []
    for row in rows:
        ids = torch.from_numpy(row.tokens).long()
        log_probs = (model(input_ids=ids[None]).logits[0] / TEMPERATURE).log_softmax(-1)
        at = torch.from_numpy(np.nonzero(row.learned)[0])
        picked.append(log_probs[at - 1, ids[at]])
        entropies.append(-(log_probs.exp() * log_probs).sum(-1)[at - 1])
    return torch.cat(picked), torch.cat(entropies)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize(
    ("name", "targets", "config"),
    [
        ("llama", (LoraTarget.ATTENTION,), {}),
        ("llama", (LoraTarget.ATTENTION, LoraTarget.HEAD), {}),
        ("qwen2", (LoraTarget.ATTENTION,), {"tie_word_embeddings": True}),
        ("gemma2", (LoraTarget.ATTENTION,), {"final_logit_softcapping": 3.0}),
        ("olmo2", (LoraTarget.ATTENTION,), {}),  # not in the table
    ],
)
def test_chunks_score_as_the_whole_does(
    name: str,
    targets: tuple[LoraTarget, ...],
    config: dict[str, Any],
    chunk: int,
    tmp_path: Path,
) -> None:
    model, rows = adapted(name, tmp_path, targets, **config), encoded()
    wanted, entropies = expected(model, rows)
    weights = torch.linspace(-1, 1, len(wanted))
    wanted_gradients = gradients(model, (wanted * weights).sum())
    scorer = LogProbModel(model, checkpointing=False, temperature=TEMPERATURE)
    assert scorer.head is not None
    most = chunk * model.config.vocab_size * 4
    scorer.head = Head(model.get_base_model(), TEMPERATURE, most)
    batch = MicroBatch.of(rows, CPU, packed=scorer.packs)
    got, spread = score_with(scorer, batch, entropy=True)
    assert_close(got, wanted, terms=TINY_MODEL)
    assert_close(spread, entropies, terms=TINY_MODEL, scale=float(wanted.abs().max()))
    assert not spread.requires_grad
    found = gradients(model, (got * weights).sum())
    assert found.keys() == wanted_gradients.keys()
    for path, gradient in wanted_gradients.items():
        assert_close(found[path], gradient, terms=THERE_AND_BACK, what=path)


def test_a_model_that_must_run_whole_scores_as_it_does_itself(tmp_path: Path) -> None:
    model, rows = adapted("olmo2", tmp_path, (LoraTarget.ATTENTION,)), encoded()
    wanted, entropies = expected(model, rows)

    def forget(_: Any, inputs: Any, named: dict[str, Any]) -> Any:
        """Do as models that take any keyword and know no `logits_to_keep`."""
        return inputs, {name: value for name, value in named.items() if name != "logits_to_keep"}

    model.register_forward_pre_hook(forget, with_kwargs=True)
    model.get_base_model().config.logit_scale = 0.25  # which the class itself does not look at
    scorer = LogProbModel(model, checkpointing=False, temperature=TEMPERATURE)
    assert scorer.head is None
    got, spread = score_with(scorer, MicroBatch.of(rows, CPU), entropy=True)
    assert_close(got, wanted, terms=TINY_MODEL)
    assert_close(spread, entropies, terms=TINY_MODEL, scale=float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("field", "value"), [("logit_scale", 0.25), ("final_logit_softcapping", 2.0)]
)
def test_a_head_that_is_more_than_is_known_is_no_head(
    field: str, value: float, tmp_path: Path
) -> None:
    causal = empty_model(write_tiny("olmo2", tmp_path))
    assert splits(causal)
    setattr(causal.config, field, value)  # which the class itself does not look at
    assert not splits(causal)


def test_what_no_small_model_can_be_made_of_runs_whole(tmp_path: Path) -> None:
    unlike_any = SimpleNamespace(config=empty_model(write_tiny("olmo2", tmp_path)).config)
    assert not splits(unlike_any)


def head_of(vocabulary: int, width: int, **options: Any) -> Head:
    torch.manual_seed(0)
    config = SimpleNamespace(vocab_size=vocabulary)
    causal = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: config),
        get_output_embeddings=lambda: torch.nn.Linear(width, vocabulary, bias=False),
    )
    return Head(causal, **options)


@pytest.mark.parametrize("whole", [False, True])
def test_half_precision_rounds_no_quotient_by_the_temperature(whole: bool, tmp_path: Path) -> None:
    """Completions are drawn from softmax(logits / T) of the logits as the model gives them."""
    if whole:
        model = adapted("llama", tmp_path, (LoraTarget.ATTENTION,)).bfloat16()
        scorer = LogProbModel(model, checkpointing=False, temperature=TEMPERATURE)
        scorer.head = None
        batch = MicroBatch.of(encoded(), CPU)
        got, spread = score_with(scorer, batch, entropy=True)
        logits = model(input_ids=batch.input_ids).logits[batch.rows, batch.times]
        targets = batch.targets
    else:
        head = head_of(300, 16, temperature=TEMPERATURE).bfloat16()
        hidden = (8 * torch.randn(50, 16)).bfloat16()
        targets = torch.randint(300, (50,))
        got, spread = head(hidden, targets, entropy=True)
        logits = head.projection(hidden)
    exact = (logits.double() / TEMPERATURE).log_softmax(-1)
    wanted = exact.gather(1, targets[:, None])[:, 0]
    entropies, largest = -(exact.exp() * exact).sum(-1), float(exact.abs().max())
    assert_close(got, wanted, terms=exact.shape[-1], scale=largest)
    assert_close(spread, entropies, terms=exact.shape[-1], scale=largest)


def test_chunked_cross_entropy_is_the_whole_one_with_its_gradients() -> None:
    vocabulary, width, positions = 5000, 16, 97
    head = head_of(vocabulary, width, most=10 * vocabulary * 4)
    hidden = torch.randn(positions, width, requires_grad=True)
    targets = torch.randint(vocabulary, (positions,))
    got, _ = head(hidden, targets)
    (found,) = torch.autograd.grad(got.sum(), hidden)
    whole = -torch.nn.functional.cross_entropy(head.projection(hidden), targets, reduction="none")
    (wanted,) = torch.autograd.grad(whole.sum(), hidden)
    assert_close(got, whole, terms=width)
    assert_close(found, wanted, terms=vocabulary)


def test_the_logits_of_all_positions_never_exist() -> None:
    vocabulary, width, positions, chunk = 4000, 8, 256, 16
    head = head_of(vocabulary, width, most=chunk * vocabulary * 4)
    hidden = torch.randn(positions, width, requires_grad=True)
    with LargestTensor() as largest:
        targets = torch.zeros(positions, dtype=torch.int64)
        head(hidden, targets, entropy=True)[0].sum().backward()
    assert largest.elements == chunk * vocabulary


def test_names_of_parameters_are_the_peft_models(tmp_path: Path) -> None:
    model = adapted("llama", tmp_path, (LoraTarget.HEAD,))
    names = [name for name, _ in model.named_parameters()]
    scorer = LogProbModel(model, checkpointing=False)
    assert [name.removeprefix("model.") for name, _ in scorer.named_parameters()] == names


def test_an_architecture_that_is_not_packed_is_refused_packed_rows(tmp_path: Path) -> None:
    scorer = LogProbModel(adapted("olmo2", tmp_path, (LoraTarget.ATTENTION,)), checkpointing=False)
    with pytest.raises(AssertionError, match="packed"):
        score(scorer, MicroBatch.of(encoded(), CPU, packed=True))

"""Packed rows are attended to as if each stood alone, in every architecture that is packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from finetune_trainer.model import attention
from finetune_trainer.model.architectures import ARCHITECTURES
from finetune_trainer.model.attention import NAME, Segments, segmented_attention
from support.models.tiny_models import MODELS, write_tiny
from support.models.tolerance import THERE_AND_BACK, TINY_MODEL, assert_close
from support.trainer.tensor_sizes import LargestTensor

LENGTHS = (7, 1, 23, 12)
WINDOW = {"sliding_window": 5}
# name of a tiny model -> what of its attention is turned on besides
FEATURES: dict[str, dict[str, Any]] = {
    "mistral": WINDOW,
    "mixtral": WINDOW,
    "phi3": WINDOW,
    "qwen2": {**WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "gemma2": {**WINDOW, "attn_logit_softcapping": 2.0},
    "gemma3": WINDOW,
}
PACKED = [name for name, (model_type, _) in MODELS.items() if model_type in ARCHITECTURES]


def rows(vocabulary: int = 256) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, vocabulary, (1, n), generator=generator) for n in LENGTHS]


def pack(parts: list[torch.Tensor]) -> dict[str, Any]:
    lengths = tuple(part.shape[1] for part in parts)
    return {
        "input_ids": torch.cat(parts, dim=1),
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "segments": Segments.of(lengths, torch.device("cpu")),
        "use_cache": False,
    }


def load(directory: Path, implementation: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=implementation
    )


def test_every_known_architecture_is_among_the_packed_ones() -> None:
    assert {MODELS[name][0] for name in PACKED} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_row_gets_the_logits_that_it_gets_alone(name: str, tmp_path: Path) -> None:
    write_tiny(name, tmp_path, **FEATURES.get(name, {}))
    alone, packed = load(tmp_path, "eager"), load(tmp_path, NAME)
    parts = rows()
    with torch.no_grad():
        expected = torch.cat([alone(input_ids=part).logits for part in parts], dim=1)
        # So that these short rows have several blocks.
        logits = packed(**pack(parts), score_block=4).logits
        leaking = alone(input_ids=torch.cat(parts, dim=1)).logits
    assert_close(logits, expected, terms=TINY_MODEL)
    assert (leaking - expected).abs().max() > 1e-2  # the test would see a leak


@pytest.mark.parametrize("name", ["llama", "gemma2", "deepseek-v3"])
def test_a_packed_row_sends_back_the_gradients_that_it_sends_alone(
    name: str, tmp_path: Path
) -> None:
    write_tiny(name, tmp_path, **FEATURES.get(name, {}))
    alone, packed = load(tmp_path, "eager"), load(tmp_path, NAME)
    parts = rows()
    sum(alone(input_ids=part).logits.square().sum() for part in parts).backward()
    packed(**pack(parts)).logits.square().sum().backward()
    for (path, parameter), expected in zip(
        packed.named_parameters(), alone.parameters(), strict=True
    ):
        if expected.grad is not None:
            assert_close(parameter.grad, expected.grad, terms=THERE_AND_BACK, what=path)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_padding_on_the_right_changes_nothing_before_it(name: str, tmp_path: Path) -> None:
    write_tiny(name, tmp_path, **FEATURES.get(name, {}))
    model, row = load(tmp_path, NAME), rows()[2]
    padded = torch.cat([row, torch.zeros(1, 9, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        expected = load(tmp_path, "eager")(input_ids=row).logits
        batch = model(input_ids=torch.cat([padded, padded]), use_cache=False).logits
    assert_close(batch[1:, : row.shape[1]], expected, terms=TINY_MODEL)


@pytest.mark.parametrize("options", [{}, {"sliding_window": 64}, {"softcap": 20.0}])
def test_scores_of_all_pairs_never_exist(options: dict[str, Any]) -> None:
    length, none = 2048, torch.nn.Module()
    query, key, value = (
        torch.randn(1, heads, length, 8, requires_grad=True) for heads in (2, 1, 1)
    )
    with LargestTensor() as largest:
        out, _ = segmented_attention(none, query, key, value, None, score_block=64, **options)
        out.sum().backward()
    assert largest.elements < length * length / 4


def test_a_mask_is_refused() -> None:
    tensor = torch.zeros(1, 1, 2, 4)
    with pytest.raises(AssertionError, match="segments"):
        segmented_attention(torch.nn.Module(), tensor, tensor, tensor, torch.ones(1))


class OnGpu(torch.Tensor):
    """A tensor that says that it lies on a GPU."""

    is_cuda = True


def let_gpus_have(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)


def on_gpu(heads: int, width: int = 8, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(1, heads, 6, width).to(dtype).as_subclass(OnGpu)


FLASH = [
    # number format, compute capability, width of a head, whether flash kernels serve
    (torch.float16, (8, 0), 256, True),
    (torch.bfloat16, (9, 0), 64, True),
    (torch.float16, (7, 5), 64, False),  # T4, on which FP16 is advised
    (torch.float16, (7, 0), 64, False),
    (torch.float32, (8, 0), 64, False),
    (torch.float16, (8, 0), 264, False),
]


@pytest.mark.parametrize(("dtype", "capability", "width", "serves"), FLASH)
def test_flash_is_for_devices_that_have_it(
    dtype: torch.dtype,
    capability: tuple[int, int],
    width: int,
    serves: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_gpus_have(capability, monkeypatch)
    query, plain = on_gpu(4, width, dtype), attention._Rule(None, 0.0, None, None)
    assert attention._has_flash(query) == serves
    assert attention._fused(query, plain) == (serves and attention.FUSED)
    assert not attention._fused(query, attention._Rule(None, 0.1, None, None))
    assert not attention._fused(query, attention._Rule(None, 0.0, None, 2.0))
    assert not attention._fused(query.as_subclass(torch.Tensor), plain)


class Attended(TorchFunctionMode):
    """Notes how many heads keys have in torch's attention, and whether it is told they are few."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, bool]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), named: Any = None
    ) -> Any:
        if function is torch.nn.functional.scaled_dot_product_attention:
            _, key, value = args
            assert key.shape[1] == value.shape[1]
            self.seen.append((key.shape[1], named["enable_gqa"]))
        return function(*args, **(named or {}))


@pytest.mark.parametrize(
    ("capability", "window", "heads"),
    [((8, 0), None, 2), ((7, 5), None, 4), ((8, 0), 3, 4)],
)
def test_heads_are_repeated_where_a_gpu_would_keep_all_scores(
    capability: tuple[int, int],
    window: int | None,
    heads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_gpus_have(capability, monkeypatch)
    query, key, value = on_gpu(4), on_gpu(2), on_gpu(2)
    bare = [t.as_subclass(torch.Tensor) for t in (query, key, value)]
    rule = attention._Rule(None, 0.0, window, None)
    expected = attention._attend(*bare, rule)
    with Attended() as attended:
        out = attention._attend(query, key, value, rule)
    assert attended.seen == [(heads, heads != 4)]
    torch.testing.assert_close(out.as_subclass(torch.Tensor), expected)

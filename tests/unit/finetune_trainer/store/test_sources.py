"""file:// sources: used in place, known by their content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource, ModelRecipe
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.sources import fetch_data, fetch_model, resolve_model


def model(directory: Path, *names: str) -> ModelRecipe:
    directory.mkdir()
    for name in names:
        (directory / name).write_text(name)
    return ModelRecipe(uri=directory.as_uri())


def test_a_model_stays_in_place_and_its_revision_is_its_content(tmp_path: Path) -> None:
    names = ("config.json", "model.safetensors", "tokenizer.json")
    first, second = (model(tmp_path / name, *names) for name in ("a b", "c"))
    source = resolve_model(first, None)
    assert [f.path for f in source.small_files] == ["config.json", "tokenizer.json"]
    assert fetch_model(source, source.files, tmp_path / "cache", None) == tmp_path / "a b"
    assert not (tmp_path / "cache").exists()
    revision = source.identity.revision
    assert resolve_model(second, None).identity.revision == revision
    (tmp_path / "c" / "model.safetensors").write_text("model.safetensorz")
    assert resolve_model(second, None).identity.revision != revision


@pytest.mark.parametrize(
    ("names", "reason", "message"),
    [
        ((), Reason.MODEL_NOT_FOUND, "holds no config.json"),
        (("config.json",), Reason.MODEL_NOT_FOUND, r"holds no \*\.safetensors"),
        (("config.json", "consolidated.safetensors"), Reason.MODEL_UNSUPPORTED, "holds neither"),
        (("config.json", "a.pt"), Reason.MODEL_UNSUPPORTED, r"pickle only \(a\.pt\)"),
        (
            ("adapter_config.json", "config.json", "model.safetensors"),
            Reason.MODEL_UNSUPPORTED,
            r"holds an adapter: .* spec\.model\.initFrom",
        ),
    ],
)
def test_models_that_can_not_be_loaded_are_refused(
    tmp_path: Path, names: tuple[str, ...], reason: Reason, message: str
) -> None:
    recipe = model(tmp_path / "model", *names)
    with pytest.raises(Failure, match=message) as caught:
        resolve_model(recipe, None)
    assert caught.value.reason is reason
    assert recipe.uri in caught.value.message


SECOND_LAYOUTS = ("adapter_model.safetensors", "config.json", "consolidated.safetensors")
SHARDS = ("model-1.safetensors", "model-2.safetensors")
INDEX = "model.safetensors.index.json"


def with_index(directory: Path, *names: str) -> ModelRecipe:
    recipe = model(directory, *names)
    weights = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}
    (directory / INDEX).write_text(json.dumps(weights))
    return recipe


def test_of_weights_in_two_layouts_one_is_taken(tmp_path: Path) -> None:
    sharded = resolve_model(with_index(tmp_path / "a", *SECOND_LAYOUTS, *SHARDS), None)
    assert [f.path for f in sharded.files] == ["config.json", *SHARDS, INDEX]
    # As transformers takes them, which looks for the one file first.
    both = with_index(tmp_path / "b", *SECOND_LAYOUTS, *SHARDS, "model.safetensors")
    assert [f.path for f in resolve_model(both, None).files] == [
        "config.json",
        "model.safetensors",
        INDEX,
    ]
    before = sharded.identity.revision
    (tmp_path / "a" / "consolidated.safetensors").write_text("other")
    assert resolve_model(ModelRecipe(uri=sharded.identity.uri), None).identity.revision == before
    (tmp_path / "a" / SHARDS[1]).write_text("other")
    assert resolve_model(ModelRecipe(uri=sharded.identity.uri), None).identity.revision != before


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    recipe = with_index(tmp_path / "model", "config.json", SHARDS[0])
    with pytest.raises(Failure, match=r"lacks 1 of the files .* model-2\.safetensors") as caught:
        resolve_model(recipe, None)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": 1}',
        '{"weight_map": {"a": []}}',
        '{"weight_map": {"a": "config.json"}}',
        "[" * 4000 + "]" * 4000,
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, damage: str) -> None:
    recipe = with_index(tmp_path / "model", "config.json", *SHARDS)
    (tmp_path / "model" / INDEX).write_text(damage)
    with pytest.raises(Failure, match=r"index\.json is damaged; upload it again") as caught:
        resolve_model(recipe, None)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


def test_a_revision_is_for_the_hub_only(tmp_path: Path) -> None:
    recipe = model(tmp_path / "model", "config.json", "model.safetensors")
    with pytest.raises(Failure, match="revision is for hf:// models only"):
        resolve_model(recipe.model_copy(update={"revision": "main"}), None)


def test_a_data_file_stays_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a b.jsonl"
    path.touch()
    source = DataSource(uri=path.as_uri())
    assert fetch_data(source, tmp_path / "data", None, lambda count: None) == path
    path.unlink()
    with pytest.raises(Failure, match=r"a%20b\.jsonl does not exist") as caught:
        fetch_data(source, tmp_path / "data", None, lambda count: None)
    assert caught.value.reason is Reason.DATA_NOT_FOUND

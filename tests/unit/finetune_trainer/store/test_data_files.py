"""Which files a source of data is: a directory's, a pattern's, a split's."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.data_files import chosen, configs, part_uris, split_of

CARD = b"""---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test_sft
    path: [data/test_sft-*, more/**/x.json]
- config_name: raw
  data_files: "raw/*.csv"
- config_name: mapped
  data_files: {train: [raw/a.csv], test: "raw/**.csv"}
- config_name: whole
  data_dir: whole
---
# A data set
"""
PATHS = [
    "README.md",
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/test_sft-00000-of-00001.parquet",
    "more/a/b/x.json",
    "more/x.json",
    "raw/a.csv",
    "raw/deep/b.csv",
    "whole/train.jsonl",
    "whole/test.jsonl",
]
DATASET = DataSource(uri="hf://datasets/org/name")


def of(**fields: str) -> DataSource:
    return DATASET.model_copy(update=fields)


def test_a_card_says_which_files_are_of_a_split() -> None:
    listed = configs(CARD)
    assert chosen(of(), PATHS, listed) == PATHS[1:3]
    assert chosen(of(split="test_sft"), PATHS, listed) == PATHS[3:6]
    assert chosen(of(config="raw"), PATHS, listed) == ["raw/a.csv"]
    assert chosen(of(config="mapped"), PATHS, listed) == ["raw/a.csv"]
    assert chosen(of(config="mapped", split="test"), PATHS, listed) == PATHS[6:8]
    assert chosen(of(config="whole"), PATHS, listed) == ["whole/train.jsonl"]
    assert chosen(of(config="whole", split="test"), PATHS, listed) == ["whole/test.jsonl"]
    with pytest.raises(Failure, match=r"no config x.*: default, raw, mapped, whole"):
        chosen(of(config="x"), PATHS, listed)
    with pytest.raises(Failure, match=r"no split x.*: test_sft, train"):
        chosen(of(split="x"), PATHS, listed)
    assert configs(b"# no header") == configs(b"---\n[a: :\n---\n") == configs(b"") == []


def test_without_a_list_names_tell() -> None:
    plain = ["train.csv", "test.csv", "dataset_infos.json", ".x.json"]
    assert chosen(of(), plain, []) == ["train.csv"]
    assert chosen(of(split="test"), plain, []) == ["test.csv"]
    assert chosen(of(), ["a.jsonl", "b.jsonl.gz", "README.md"], []) == ["a.jsonl", "b.jsonl.gz"]
    two = ["main/train-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet"]
    assert chosen(of(config="main"), two, []) == two[:1]
    with pytest.raises(Failure, match=r"which config is meant; .*: main, socratic"):
        chosen(of(), two, [])
    with pytest.raises(Failure, match=r"no split train.*|which split is meant; .*: test"):
        chosen(of(), ["test.csv"], [])


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("data/train_sft-00000-of-00001.parquet", "train"),
        ("val.jsonl", "validation"),
        ("dev/a.json", "validation"),
        ("trainer.json", None),
        ("latest.json", None),
        ("data/holdout-00000-of-00001.parquet", "holdout"),
    ],
)
def test_the_split_of_a_name(path: str, split: str | None) -> None:
    assert split_of(path) == split


def test_a_config_is_not_ignored_beside_a_path() -> None:
    with pytest.raises(Failure, match="config chooses files of a whole data set"):
        part_uris(of(uri=f"{DATASET.uri}/a/*.csv", config="raw"), None)


def test_directories_and_patterns(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    for name in (
        "b.jsonl",
        "a.json.gz",
        "c.csv.zstd",
        "deep/c.parquet",
        "deep/d.csv",
        "a.txt",
        "_x.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(uri: str) -> list[str]:
        return [uri.removeprefix(f"{root}/") for uri in part_uris(DataSource(uri=uri), None)]

    every = ["a.json.gz", "b.jsonl", "c.csv.zstd", "deep/c.parquet", "deep/d.csv"]
    assert found(root) == found(f"{root}/") == every
    assert found(f"{root}/deep") == every[3:]
    assert found(f"{root}/*.jsonl") == ["b.jsonl"]
    assert found(f"{root}/*/[cd].*") == every[3:]
    assert found(f"{root}/**/*.csv") == found(f"{root}/**/d.csv") == ["deep/d.csv"]
    assert found(f"{root}/**/c.*") == ["c.csv.zstd", "deep/c.parquet"]
    with pytest.raises(Failure, match="holds no file of rows"):
        found(f"{root}/**/jsonl")  # which is no more than a name's end
    assert found(f"{root}/b.jsonl") == ["b.jsonl"]
    with pytest.raises(Failure, match=r"holds no file of rows") as caught:
        found(f"{root}/*.tsv")
    assert caught.value.reason is Reason.DATA_NOT_FOUND

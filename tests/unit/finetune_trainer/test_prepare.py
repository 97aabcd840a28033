"""Data is encoded once per node, used again by later attempts, and agreed on by all ranks."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from finetune_contract.reasons import Reason
from finetune_contract.recipe import BadRows, DataFormat
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.data.check import DataFile
from finetune_trainer.data.dataset import DatasetWriter
from finetune_trainer.data.encode import VERSION, EncodedRow, Encoder
from finetune_trainer.data.encoding import LIBRARIES, SKIPPED, Encoding, Form, encode_once
from finetune_trainer.prepare import prepare
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from support.models.tiny_llama import CHATML, byte_tokenizer, sums, write_rows
from support.trainer.forked_ranks import forked
from support.trainer.parts import run_of
from support.trainer.runs import run_config

FORM = Form(256)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    byte_tokenizer().save_pretrained(directory)
    return directory


def encoding(*paths: Path, model: Path, **options: Any) -> Encoding:
    files = tuple(DataFile.counted(f"s3://d/{path.name}", path, DataFormat.AUTO) for path in paths)
    form = options.pop("form", Form(options.pop("longest", 256)))
    return Encoding(files, form, model, **{"on_bad_row": BadRows.FAIL, **options})


def on_failing_disk(number: int) -> Form:
    """Return the form of rows that are kept where every write fails so."""

    class Failing(DatasetWriter):
        def add(self, row: EncodedRow, key: int, line: int, place: int) -> None:
            raise OSError(number, "fails")

    return Form(256, writer=Failing)


def never() -> Encoder:
    raise AssertionError("what is encoded is not encoded again")


def made(what: Encoding, root: Path, load: Callable[[], Encoder] | None = None) -> Path:
    def encoder() -> Encoder:
        return Encoder(byte_tokenizer(), what.form.longest)

    return encode_once(what, root, load or encoder, frozenset(), lambda lines: None)


@pytest.mark.usefixtures("scratch_alone")
def test_what_is_encoded_is_used_again(tmp_path: Path, model: Path) -> None:
    what = encoding(write_rows(tmp_path / "a.jsonl", sums(9)), model=model)
    first = made(what, tmp_path / "root")
    seen: list[int] = []
    assert encode_once(what, tmp_path / "root", never, frozenset(), seen.append) == first
    assert seen == [9]
    name = what.digest()
    moved = (tmp_path / "a.jsonl").rename(tmp_path / "elsewhere")
    same = DataFile.counted("s3://d/a.jsonl", moved, DataFormat.AUTO)
    assert Encoding((same,), Form(256), model, BadRows.FAIL).digest() == name == first.name


def test_all_that_decides_the_tokens_decides_the_name(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path / "a.jsonl", sums(3))
    names = [encoding(rows, model=model).digest()]
    names += [encoding(rows, model=model, longest=128).digest()]
    names += [encoding(rows, model=model, on_bad_row=BadRows.SKIP).digest()]
    names += [encoding(rows, model=model, against="0" * 64).digest()]
    names += [encoding(rows, rows, model=model).digest()]
    typed = DataFile.counted("s3://d/a.jsonl", rows, DataFormat.MESSAGES)
    names += [Encoding((typed,), Form(256), model, BadRows.FAIL).digest()]
    code = {"encoder": VERSION, "libraries": [version(name) for name in LIBRARIES]}
    assert code.items() <= encoding(rows, model=model).decides().items()
    write_rows(rows, sums(4))
    names += [encoding(rows, model=model).digest()]
    (model / "chat_template.jinja").write_text(CHATML + " ")
    names += [encoding(rows, model=model).digest()]
    assert len(set(names)) == len(names)


def test_what_a_killed_attempt_left_is_swept_and_made_again(tmp_path: Path, model: Path) -> None:
    what = encoding(write_rows(tmp_path / "a.jsonl", sums(9)), model=model)
    root = tmp_path / "root"
    directory = made(what, root)
    (directory / "tokens").write_bytes(b"")  # as after a power cut
    (root / f".{directory.name}.17").mkdir()
    assert made(what, root) == directory
    assert sorted(path.name for path in root.iterdir()) == [
        directory.name,
        f"{directory.name}.lock",
    ]
    assert made(what, root, never) == directory


def test_a_fault_leaves_nothing_behind(tmp_path: Path, model: Path) -> None:
    what = encoding(write_rows(tmp_path / "a.jsonl", [*sums(3), {}]), model=model)
    with pytest.raises(Failure):
        made(what, tmp_path / "root")
    assert [path.suffix for path in (tmp_path / "root").iterdir()] == [".lock"]


def test_only_one_process_encodes(tmp_path: Path, model: Path) -> None:
    what = encoding(write_rows(tmp_path / "a.jsonl", sums(3)), model=model)
    root = tmp_path / "root"
    root.mkdir()
    fork = multiprocessing.get_context("fork")
    with FileLock(root / f"{what.digest()}.lock"):
        other = fork.Process(target=made, args=(what, root))
        other.start()
        other.join(0.3)
        assert other.is_alive()
        assert not (root / what.digest()).exists()
    other.join(60)
    assert other.exitcode == 0
    assert made(what, root, never)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, model: Path, number: int) -> None:
    rows = write_rows(tmp_path / "a.jsonl", sums(3))
    what = encoding(rows, model=model, form=on_failing_disk(number))
    with pytest.raises(Failure, match="has no room for the encoded rows") as caught:
        made(what, tmp_path / "root")
    assert caught.value.reason is Reason.DISK_FULL
    assert [path.suffix for path in (tmp_path / "root").iterdir()] == [".lock"]


def test_other_errors_of_the_disk_are_not_called_full(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path / "a.jsonl", sums(3))
    what = encoding(rows, model=model, form=on_failing_disk(errno.EIO))
    with pytest.raises(OSError, match="fails"):
        made(what, tmp_path / "root")


Report = tuple[str, Any]
Case = Callable[[int, Ranks, Path], Any]


def on_two_ranks(case: Case, directory: Path, *, one_node: bool = False) -> list[Report]:
    """Return what a case returned or failed with on each of two ranks."""

    def reported(rank: int) -> Report:
        ranks = Ranks.meet()
        ranks.join()
        try:
            report: Report = ("ok", case(rank, ranks, directory))
        except Failure as failure:
            report = (str(failure.reason), (failure.message, failure.rank))
        ranks.wait()
        return report

    return forked(2, reported, one_node)


def node_config(directory: Path, node: int, **data: Any) -> RunConfig:
    """Return the RunConfig of a node that has its own disk."""
    config = run_config(directory, workers=2)
    recipe = config.recipe.model_dump(mode="json", by_alias=True)
    recipe["data"] |= data
    layout = config.layout.model_dump(mode="json", by_alias=True)
    layout["scratchDir"] = str(directory / f"node{node}")
    return RunConfig.model_validate({"version": config.version, "recipe": recipe, "layout": layout})


def prepared(
    rank: int, ranks: Ranks, directory: Path, form: Form = FORM, **data: Any
) -> tuple[Any, ...]:
    config = node_config(directory, rank, **data)
    train = DataFile.counted(
        config.recipe.data.train[0].uri, directory / "train.jsonl", DataFormat.AUTO
    )
    held_out = [
        DataFile.counted(source.uri, directory / "eval.jsonl", source.format)
        for source in config.recipe.data.eval
    ]
    reporter = Reporter()
    # Only rank 0's disk has the files at the paths that it names.
    files = [train]
    both = ranks.lead(lambda: (files, held_out))
    run = run_of(config, ranks, reporter)
    found = prepare(run, form, directory / "model", both[0], both[1])
    return (
        found.train.tokens.tolist(),
        None if found.eval is None else len(found.eval),
        found.skipped,
        None if found.skipped_file is None else found.skipped_file.read_text(),
        (reporter.latest.done, reporter.latest.total),
        sorted(path.name for path in directory.glob(f"node{rank}/encoded/*/index.json")),
        found.train.sources[0].weight,
    )


def with_eval(rank: int, ranks: Ranks, directory: Path) -> tuple[Any, ...]:
    uri = (directory / "eval.jsonl").as_uri()
    source = {"uri": (directory / "train.jsonl").as_uri(), "weight": 0.5}
    return prepared(rank, ranks, directory, train=[source], eval=[{"uri": uri}], onBadRow="Skip")


def test_every_node_encodes_for_itself(tmp_path: Path, model: Path) -> None:
    held_out = sums(12)[10:]
    write_rows(tmp_path / "train.jsonl", [*sums(7), {}, held_out[0]])
    write_rows(tmp_path / "eval.jsonl", [*held_out, []])
    (_, first), (_, second) = on_two_ranks(with_eval, tmp_path)
    assert first[0] == second[0]
    assert (first[1], second[1]) == (2, 2)
    assert (first[2], second[2]) == (3, 3)
    assert first[3].count("\n") == 3
    assert '"row": 9, "reason": "is in the eval data too"' in first[3]
    assert second[3] is None
    assert (tmp_path / "node0" / SKIPPED).exists()
    assert first[4] == (12, 12)
    assert (first[5], second[5]) == (["index.json"] * 2, ["index.json"] * 2)
    assert first[6] == 0.5


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, model: Path) -> None:
    write_rows(tmp_path / "train.jsonl", sums(7))
    (model / "config.json").write_text('{"text_config": {"vocab_size": 100}}')
    for reason, told in on_two_ranks(prepared, tmp_path):
        assert reason == "ModelUnsupported"
        assert "but the model has 100 " in told[0]


def test_one_rank_of_a_node_encodes_for_all(tmp_path: Path, model: Path) -> None:
    write_rows(tmp_path / "train.jsonl", sums(7))

    def same_node(rank: int, ranks: Ranks, directory: Path) -> Any:
        config = node_config(directory, 0)
        file = DataFile.counted(
            config.recipe.data.train[0].uri, directory / "train.jsonl", DataFormat.AUTO
        )
        # Another dataset, if this rank made one.
        form = FORM if rank == 0 else Form(256, decides=("another",))
        made = prepare(run_of(config, ranks), form, directory / "model", [file])
        return made.train.tokens.tolist()

    first, second = on_two_ranks(same_node, tmp_path, one_node=True)
    assert first == second
    assert first[0] == "ok"


def test_a_fault_that_one_node_finds_ends_all_alike(tmp_path: Path, model: Path) -> None:
    write_rows(tmp_path / "train.jsonl", sums(7))

    def full_on_one(rank: int, ranks: Ranks, directory: Path) -> Any:
        form = on_failing_disk(errno.ENOSPC) if rank == 1 else FORM
        return prepared(rank, ranks, directory, form)

    reports = on_two_ranks(full_on_one, tmp_path)
    assert reports[0] == reports[1]
    reason, (message, rank) = reports[0]
    assert (reason, rank) == ("DiskFull", 1)
    assert "node1" in message


def test_nodes_that_read_different_data_are_told_apart(tmp_path: Path, model: Path) -> None:
    first = write_rows(tmp_path / "train.jsonl", sums(7))
    other = write_rows(tmp_path / "other.jsonl", sums(8))

    def changed(rank: int, ranks: Ranks, directory: Path) -> Any:
        source = {"uri": other.as_uri()} if rank == 1 else {"uri": first.as_uri()}
        return prepared(rank, ranks, directory, train=[source])

    reports = on_two_ranks(changed, tmp_path)
    assert reports[0] == reports[1]
    assert reports[0][0] == "DataInvalid"
    assert "changed while the nodes were reading it" in reports[0][1][0]

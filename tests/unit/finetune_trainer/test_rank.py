"""Every rank of a run ends with the same Result, whichever of them has the cause."""

from __future__ import annotations

import json
import re
from pathlib import Path

from finetune_contract.artifact import Manifest
from finetune_contract.reasons import Reason
from finetune_contract.result import Result
from finetune_contract.runconfig import RunConfig
from finetune_trainer.store.storage import hash_file
from support.models.tiny_llama import CHATML, dialogue, sums, write_model, write_rows
from support.trainer.fork_server import ForkServer
from support.trainer.launchers import ENDLESS
from support.trainer.runs import run_config

CANARY = "canary-9d41"


def results(server: ForkServer, config: RunConfig, directory: Path) -> list[Result]:
    ends = server.run(config, directory)
    assert all(end.result for end in ends), ends[0].log
    return [end.result for end in ends if end.result]


def test_what_is_published_is_not_trained_again(
    server: ForkServer, model: Path, rows: Path, tmp_path: Path
) -> None:
    """The same recipe on the same inputs, whoever asks and with whatever layout."""
    [first] = results(server, run_config(tmp_path, model=model, data=rows), tmp_path / "first")
    other = run_config(
        tmp_path,
        model=model,
        data=rows,
        job={"name": "other", "namespace": "tests", "uid": "uid-2"},
        processesPerWorker=2,
    )
    again = results(server, other, tmp_path / "again")
    assert first.artifact is not None
    assert [result.artifact for result in again] == [first.artifact] * 2


def test_what_training_can_not_mend_is_told_wherever_it_is_looked_for(
    server: ForkServer, rows: Path, tmp_path: Path
) -> None:
    text = CHATML.replace("<|im_end|>", "").replace("<|im_start|>", "")
    model = write_model(tmp_path / "model", chat_template=text)
    [result] = results(server, run_config(tmp_path, model=model, data=rows), tmp_path / "run")
    assert result.plan is not None
    [words] = result.plan.advice
    assert "generation does not stop by itself" in words
    (artifact,) = (tmp_path / "out").glob("runs/*/a1/*/artifact")
    manifest = Manifest.model_validate_json((artifact / "manifest.json").read_bytes())
    assert manifest.advice == (words,)
    assert words in (artifact / "README.md").read_text()


def test_a_chat_template_of_the_jobs_own_is_taught_published_and_recorded(
    server: ForkServer, model: Path, rows: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(CHATML.replace("<|im_end|>", "<|endoftext|>") + "{# effort #}")
    document = run_config(tmp_path, model=model, data=rows).model_dump(mode="json", by_alias=True)
    document["recipe"]["model"]["chatTemplate"] = {"uri": file.as_uri()}
    document["recipe"]["model"]["chatTemplateKwargs"] = {"effort": "low"}
    config = RunConfig.model_validate(document)
    [first] = results(server, config, tmp_path / "first")
    (artifact,) = (tmp_path / "out").glob("runs/*/a1/*/artifact")
    published = (artifact / "chat_template.jinja").read_text()
    assert published.endswith(file.read_text())
    assert "{% set effort = 'low' %}" in published
    ends = json.loads((artifact / "generation_config.json").read_bytes())["eos_token_id"]
    assert 0 in ends  # <|endoftext|>
    manifest = Manifest.model_validate_json((artifact / "manifest.json").read_bytes())
    assert manifest.provenance.chat_template == hash_file(file)
    file.write_text(file.read_text() + " ")
    document["layout"]["job"] = {"name": "other", "namespace": "tests", "uid": "uid-2"}
    config = RunConfig.model_validate(document)
    [second] = results(server, config, tmp_path / "second")
    assert second.artifact != first.artifact


def test_a_bad_row_ends_all_ranks_with_its_place(
    server: ForkServer, model: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "train.jsonl", [*sums(3), dialogue(CANARY), dialogue(CANARY, " ")])
    config = run_config(tmp_path, model=model, data=data, processesPerWorker=2)
    for result in results(server, config, tmp_path / "run"):
        assert (result.reason, result.rank) == (Reason.DATA_INVALID, 0)
        assert result.message == (
            f"{data.as_uri()} row 4: has no assistant turn to learn from "
            f"{data.as_uri()} row 5: messages[1] is an assistant turn with empty content"
        )
        assert CANARY not in result.encode()
    assert not (tmp_path / "out" / "runs").exists()


def test_a_loss_that_is_not_finite_stops_at_its_step(
    server: ForkServer, model: Path, rows: Path, tmp_path: Path
) -> None:
    config = run_config(
        tmp_path,
        model=model,
        data=rows,
        training={**ENDLESS, "optimizer": "SGD", "learningRate": 1e30, "maxGradNorm": 0},
        zeroStage=0,
    )
    [result] = results(server, config, tmp_path / "run")
    assert result.reason is Reason.NON_FINITE_LOSS
    assert result.step in (2, 3)
    place = re.fullmatch(
        rf"the loss of step {result.step} is not finite; "
        rf"first in micro-batch \d of rank 0: {re.escape(rows.as_uri())} rows ([\d, ]+)",
        result.message,
    )
    assert place is not None, result.message
    assert {int(row) for row in place[1].split(",")} <= set(range(1, 17))
    assert not (tmp_path / "out" / "runs").exists()

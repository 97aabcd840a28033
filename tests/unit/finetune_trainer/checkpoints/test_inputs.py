"""Attempts of a job go on with the inputs it began with, or say which of them is another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.artifact import RewardIdentity
from finetune_contract.checkpoint import CheckpointManifest, TrainingState
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_trainer.checkpoints.inputs import refuse_changed
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.course.progress import Reporter
from finetune_trainer.course.telemetry import Telemetry
from finetune_trainer.lead import Lead, Start, begin
from finetune_trainer.methods.grpo.rewards.reward_model import reward_models
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.step.optimizer_state import Moments
from finetune_trainer.store.publish import Output
from support.grpo.configs import VOWEL, grpo_config, prompts
from support.models.tiny_llama import sums, write_rows
from support.rewards.reward_models import write_judge
from support.services.hub import COMMIT, Hub, hub_server
from support.storage.publications import SUMMARY
from support.trainer.runs import run_config

MOVED = "decade00" * 5


@pytest.fixture
def hub(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        hub.files = {"models/org/name": {p.name: p.read_bytes() for p in model.iterdir()}}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def job(directory: Path, model: Path | str, attempt: int = 1, **changes: Any) -> RunConfig:
    if not (directory / "train.jsonl").exists():
        write_rows(directory / "train.jsonl", sums(4))
        write_rows(directory / "eval.jsonl", sums(6)[4:])
    config = run_config(directory, model=model, attempt=attempt, **changes)
    Path(config.layout.scratch_dir).mkdir(exist_ok=True)
    document = config.model_dump(mode="json", by_alias=True)
    document["recipe"]["data"]["eval"] = [{"uri": (directory / "eval.jsonl").as_uri()}]
    return RunConfig.model_validate(document)


def started(config: RunConfig) -> Start:
    return begin(config, Reporter())


def saved(config: RunConfig, step: int = 5, rewards: tuple[RewardIdentity, ...] = ()) -> None:
    """Start an attempt, and save a checkpoint."""
    lead = Lead(config, Reporter(), begin(config, Reporter(), rewards), Telemetry(config, {}))
    lead.resume(lambda _: True)
    state = TrainingState(step=step, supervised_tokens=1, loss=1.0)
    lead.save(Snapshot(state, {"a": torch.ones(2)}, Moments()))
    assert lead.saved() is not None


def saved_manifest(directory: Path) -> CheckpointManifest:
    [file] = (directory / "out/runs").rglob("checkpoints/*/manifest.json")
    return CheckpointManifest.model_validate_json(file.read_bytes())


def resumed_step(config: RunConfig) -> int:
    lead = Lead(config, Reporter(), started(config), Telemetry(config, {}))
    return lead.resume(lambda _: True).state.step


def refused(config: RunConfig) -> str:
    with pytest.raises(Failure) as caught:
        started(config)
    assert caught.value.reason is Reason.INPUT_CHANGED
    return caught.value.message


def test_a_branch_that_moves_on_is_not_followed(hub: Hub, tmp_path: Path) -> None:
    saved(job(tmp_path, "hf://org/name"))
    hub.commits.append(MOVED)
    hub.files["models/org/name"]["README.md"] = b"a better text"
    start = started(job(tmp_path, "hf://org/name", attempt=2))
    assert start.model.identity.revision == COMMIT
    assert resumed_step(job(tmp_path, "hf://org/name", attempt=3)) == 5


def test_another_job_or_recipe_follows_the_branch(hub: Hub, tmp_path: Path) -> None:
    saved(job(tmp_path, "hf://org/name"))
    hub.commits.append(MOVED)
    other = {"name": "other", "namespace": "tests", "uid": "uid-2"}
    for config in (
        job(tmp_path, "hf://org/name", job=other),
        job(tmp_path, "hf://org/name", attempt=2, training={"seed": 3}),
    ):
        start = started(config)
        assert start.model.identity.revision == MOVED


def test_inputs_that_changed_are_named_and_the_checkpoint_stays(
    model: Path, tmp_path: Path
) -> None:
    saved(job(tmp_path, model))
    before = (tmp_path / "train.jsonl").read_bytes()
    write_rows(tmp_path / "train.jsonl", sums(5))
    second = job(tmp_path, model, attempt=2)
    told = refused(second)
    assert "since the checkpoint of step 5" in told
    assert f"{(tmp_path / 'train.jsonl').as_uri()} (spec.data.train)" in told
    assert "eval" not in told
    assert "spec.model" not in told
    write_rows(tmp_path / "eval.jsonl", sums(9)[6:])
    assert f"{(tmp_path / 'eval.jsonl').as_uri()} (spec.data.eval)" in refused(second)
    (tmp_path / "train.jsonl").write_bytes(before)
    write_rows(tmp_path / "eval.jsonl", sums(6)[4:])
    assert resumed_step(second) == 5


def test_a_model_that_is_published_anew_is_named(model: Path, tmp_path: Path) -> None:
    files = tmp_path / "model"
    files.mkdir()
    for path in model.iterdir():
        (files / path.name).write_bytes(path.read_bytes())
    saved(job(tmp_path, files))
    (files / "config.json").write_text((files / "config.json").read_text() + " ")
    assert f"{files.as_uri()} (spec.model)" in refused(job(tmp_path, files, attempt=2))


def test_adapters_and_rewards_are_named(model: Path, tmp_path: Path) -> None:
    saved(job(tmp_path, model))
    found = saved_manifest(tmp_path)
    ours = found.provenance.model_copy(
        update={
            "init_from": f"sha256:{7:064x}",
            "rewards": (RewardIdentity(name="style", revision="v2"),),
            "chat_template": f"sha256:{8:064x}",
        }
    )
    with pytest.raises(
        Failure, match=r"initFrom, the template of spec\.model\.chatTemplate, the reward style;"
    ):
        refuse_changed(found, ours)
    refuse_changed(found, found.provenance)
    refuse_changed(None, ours)


def test_a_reward_models_branch_that_moves_on_is_not_followed(
    hub: Hub, model: Path, tmp_path: Path, alone: Ranks
) -> None:
    write_judge(tmp_path / "judge")
    files = {path.name: path.read_bytes() for path in (tmp_path / "judge").iterdir()}
    hub.files["models/org/judge"] = files
    write_rows(tmp_path / "train.jsonl", prompts(4))
    judge = {"name": "judge", "model": {"uri": "hf://org/judge", "revision": "main"}}

    def attempt(number: int, seed: int = 1) -> tuple[RunConfig, tuple[RewardIdentity, ...]]:
        config = grpo_config(
            tmp_path,
            model=model,
            attempt=number,
            training={"seed": seed},
            grpo={"rewards": [VOWEL, judge]},
        )
        Path(config.layout.scratch_dir).mkdir(exist_ok=True)
        return config, reward_models(config, alone).identities

    first, began = attempt(1)
    saved(first, rewards=began)
    hub.commits.append(MOVED)
    second, again = attempt(2)
    assert again == began == (RewardIdentity(name="judge", revision=COMMIT),)
    begin(second, Reporter(), again)
    _, other = attempt(2, seed=2)
    assert other == (RewardIdentity(name="judge", revision=MOVED),)


def test_what_the_job_has_published_is_found_whatever_changed_since(
    model: Path, tmp_path: Path
) -> None:
    saved(job(tmp_path, model))
    output = Output.claim(job(tmp_path, model, attempt=2).layout)
    provenance = saved_manifest(tmp_path).provenance
    published = output.publish(model, provenance, SUMMARY, lambda count: None)
    write_rows(tmp_path / "train.jsonl", sums(5))
    start = started(job(tmp_path, model, attempt=3))
    assert start.finished == published


def test_a_model_on_disk_is_read_for_its_digest_once(model: Path, tmp_path: Path) -> None:
    config = job(tmp_path, model, cacheDir=str(tmp_path / "cache"))
    started(config)
    for path in (tmp_path / "cache/models/digests").iterdir():
        path.write_text("remembered")
    assert {file.etag for file in started(config).model.files} == {"remembered"}


def test_no_claim_is_made_before_the_inputs_are_good(model: Path, tmp_path: Path) -> None:
    running = Output.claim(job(tmp_path, model).layout)
    other = {"name": "other", "namespace": "tests", "uid": "uid-2"}
    config = job(tmp_path, model, job=other)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(Failure) as caught:
        started(config)
    assert caught.value.reason is Reason.DATA_NOT_FOUND
    running.check_claim()

"""Going on from a published adapter, and which adapters are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_contract.artifact import Manifest, ModelIdentity, Provenance, TrainingSummary
from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraTarget
from finetune_contract.resolved import MemoryEstimate, Resolved, RoleCoverage
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_trainer.adapter.initial import check_initial, fetch_initial, load_initial
from finetune_trainer.adapter.load import load_adapted
from finetune_trainer.course.progress import Reporter
from finetune_trainer.course.telemetry import Telemetry
from finetune_trainer.lead import Lead, begin
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.publish import Output
from finetune_trainer.store.sources import resolve_model
from support.models.adapters import adapted, disturb, save
from support.models.tiny_llama import sums, write_rows
from support.models.tiny_models import write_tiny
from support.trainer.runs import run_config

BASE = ModelIdentity(uri="hf://org/name", revision="c0ffee")
ROLES = ("Attention", "Experts", "MLP", "SharedExperts")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("deepseek-v3", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a trained adapter of rank 4."""
    trained = disturb(adapted(model, ROLES).model)
    return save(trained, tmp_path_factory.mktemp("adapter") / "files")


RESOLVED = Resolved(
    micro_batch_size=1,
    accumulation_steps=8,
    zero_stage=0,
    gradient_checkpointing=False,
    packing=True,
    memory=MemoryEstimate(
        weights=0, adapter=0, gradients=0, optimizer=0, activations=0, logits=0, overhead=0
    ),
)

Publish = Callable[..., PublishedArtifact]


@pytest.fixture
def publish(files: Path, tmp_path: Path) -> Publish:
    """Return what publishes the adapter below tmp_path/theirs."""

    def publish(identity: ModelIdentity = BASE, roles: tuple[str, ...] = ROLES) -> Any:
        config = run_config(tmp_path, output=(tmp_path / "theirs").as_uri())
        provenance = Provenance(recipe_digest="sha256:" + "0" * 64, model=identity, datasets=())
        summary = TrainingSummary(steps=1, supervised_tokens=1, final_loss=1.0, published_step=1)
        coverage = tuple(RoleCoverage(role=LoraTarget(r), found=1, adapted=1) for r in roles)
        output = Output.claim(config.layout)
        return output.publish(files, provenance, summary, lambda count: None, coverage)

    return publish


def job(tmp_path: Path, model: Path | None = None, **lora: Any) -> RunConfig:
    """Return a job that goes on from the adapter published there."""
    asked = {"rank": 4, "alpha": 32, "targets": list(ROLES), **lora}
    config = run_config(tmp_path, model=model, lora=asked)
    Path(config.layout.scratch_dir).mkdir(exist_ok=True)
    document = config.model_dump(mode="json", by_alias=True)
    document["recipe"]["model"]["initFrom"] = (tmp_path / "theirs").as_uri()
    return RunConfig.model_validate(document)


def mismatch(tmp_path: Path, identity: ModelIdentity = BASE, **lora: Any) -> str:
    with pytest.raises(Failure) as caught:
        check_initial(job(tmp_path, **lora).recipe, identity, None)
    assert caught.value.reason is Reason.ADAPTER_MISMATCH
    assert caught.value.message.startswith("spec.model.initFrom: ")
    return caught.value.message.removeprefix("spec.model.initFrom: ")


def test_a_job_without_it_begins_anew(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    assert check_initial(config.recipe, BASE, None) is None
    assert fetch_initial(config, None) is None


def test_training_goes_on_from_the_published_tensors(
    publish: Publish, files: Path, model: Path, tmp_path: Path
) -> None:
    published = publish()
    config = job(tmp_path)
    digest = check_initial(config.recipe, BASE, None)
    assert digest == published.digest
    weights = fetch_initial(config, digest)
    assert weights is not None
    assert weights.is_relative_to(tmp_path / "scratch")
    begun = load_adapted(config.recipe, model, weights)
    ours = save(begun.model, tmp_path / "ours")
    theirs = load_file(files / "adapter_model.safetensors")
    again = load_file(ours / "adapter_model.safetensors")
    assert theirs.keys() == again.keys()
    assert all(torch.equal(theirs[name], again[name]) for name in theirs)
    assert all(p.requires_grad for n, p in begun.model.named_parameters() if "lora_" in n)


def test_an_artifacts_own_directory_may_be_named(publish: Publish, tmp_path: Path) -> None:
    published = publish()
    document = job(tmp_path).model_dump(mode="json", by_alias=True)
    document["recipe"]["model"]["initFrom"] = published.uri
    config = RunConfig.model_validate(document)
    assert check_initial(config.recipe, BASE, None) == published.digest


def test_a_node_fetches_the_adapter_once(publish: Publish, tmp_path: Path) -> None:
    publish()
    config = job(tmp_path)
    digest = check_initial(config.recipe, BASE, None)
    first = fetch_initial(config, digest)
    assert first is not None
    good = first.read_bytes()
    for damaged in ("adapter_model.safetensors", "manifest.json"):
        first.with_name(damaged).write_bytes(bytes(len(good)))
        assert fetch_initial(config, digest) == first
        assert first.read_bytes() == good
    (tmp_path / "theirs" / "latest.json").unlink()
    assert fetch_initial(config, digest) == first


def test_an_adapter_that_changes_under_the_start_is_refused(
    publish: Publish, tmp_path: Path
) -> None:
    publish()
    with pytest.raises(Failure, match="published anew while the job started") as caught:
        fetch_initial(job(tmp_path), "sha256:" + "f" * 64)
    assert caught.value.reason is Reason.ADAPTER_MISMATCH


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"rank": 8}, "spec.lora.rank is 8, the adapter's 4"),
        ({"alpha": 4}, "spec.lora.alpha is 4, the adapter's 32"),
        ({"rslora": True}, "spec.lora.rslora is true, the adapter's false"),
        (
            {"dora": True, "targets": ["Attention"]},
            "spec.lora.dora is true, the adapter's false",
        ),
        (
            {"targets": ["MLP", "Attention"]},
            "spec.lora.targets is Attention, MLP, the adapter's Attention, Experts, MLP, "
            "SharedExperts",
        ),
    ],
)
def test_other_settings_are_refused_with_both_values(
    publish: Publish, tmp_path: Path, lora: dict[str, Any], words: str
) -> None:
    publish()
    assert mismatch(tmp_path, **lora) == words


def test_the_order_of_roles_does_not_matter(publish: Publish, tmp_path: Path) -> None:
    publish(roles=tuple(reversed(ROLES)))
    assert check_initial(job(tmp_path).recipe, BASE, None) is not None


def test_a_manifest_without_roles_can_not_be_gone_on_from(publish: Publish, tmp_path: Path) -> None:
    publish(roles=())
    assert "the adapter's not told by its manifest" in mismatch(tmp_path)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://org/name", "the adapter is of hf://org/name at c0ffee, the job's spec.model is "),
        ("hf://org/other", "is of hf://org/name at c0ffee, the job's spec.model is hf://org/other"),
    ],
)
def test_another_base_is_refused(publish: Publish, tmp_path: Path, uri: str, words: str) -> None:
    publish()
    assert words in mismatch(tmp_path, ModelIdentity(uri=uri, revision="dec0de"))


def test_equal_revisions_are_one_base_wherever_it_lies(publish: Publish, tmp_path: Path) -> None:
    publish(ModelIdentity(uri="s3://mirror/a", revision="sha256:1"))
    moved = ModelIdentity(uri="s3://mirror/b", revision="sha256:1")
    assert check_initial(job(tmp_path).recipe, moved, None) is not None


def test_bases_of_different_stores_are_told_not_compared(
    publish: Publish, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish()
    mirror = ModelIdentity(uri="s3://mirror/name", revision="sha256:1")
    with caplog.at_level(logging.WARNING):
        assert check_initial(job(tmp_path).recipe, mirror, None) is not None
    (message,) = caplog.messages
    assert "hf://org/name" in message
    assert "s3://mirror/name" in message
    assert "can not be compared" in message


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    assert "does not exist, so the artifact does not" in mismatch(tmp_path)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_altered_file_is_refused(publish: Publish, tmp_path: Path, name: str) -> None:
    publish()
    (file,) = (tmp_path / "theirs").rglob(name)
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    config = job(tmp_path)
    with pytest.raises(Failure, match="was altered") as caught:
        fetch_initial(config, check_initial(config.recipe, BASE, None))
    assert caught.value.reason is Reason.ADAPTER_MISMATCH


def test_a_manifest_without_weights_is_refused(
    publish: Publish, files: Path, tmp_path: Path
) -> None:
    weights = files / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    publish()
    weights.write_bytes(data)
    assert "names no adapter_model.safetensors" in mismatch(tmp_path)


def test_a_refused_store_stays_what_it_is(tmp_path: Path) -> None:
    document = job(tmp_path).model_dump(mode="json", by_alias=True)
    document["recipe"]["model"]["initFrom"] = "s3://bucket/adapter"
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "AWS_ACCESS_KEY_ID").write_text("x")
    with pytest.raises(Failure) as caught:
        check_initial(RunConfig.model_validate(document).recipe, BASE, str(secret))
    assert caught.value.reason is Reason.CREDENTIALS_INVALID
    assert "spec.model.credentialsSecretRef" in caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("name", "2 tensors of the adapter and of the job are not the other's, such as "),
        ("shape", r"is \(3, 32\) in the adapter and \(4, 32\) in the job"),
    ],
)
def test_tensors_without_a_place_are_refused(
    model: Path, files: Path, tmp_path: Path, change: str, words: str
) -> None:
    tensors = load_file(files / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_a_proj.lora_A.weight"
    found = tensors.pop(name)
    if change == "name":
        tensors[name.replace("q_a_proj", "q_proj")] = found
    else:
        tensors[name] = found[:3].contiguous()
    save_file(tensors, tmp_path / "weights.safetensors")
    begun = adapted(model, ROLES).model
    with pytest.raises(Failure, match=words) as caught:
        load_initial(begun, tmp_path / "weights.safetensors")
    assert caught.value.reason is Reason.ADAPTER_MISMATCH


def test_the_artifact_names_what_it_began_with_and_what_it_reaches(
    publish: Publish, model: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "train.jsonl", sums(2))
    theirs = publish(resolve_model(job(tmp_path, model).recipe.model, None).identity)
    config = job(tmp_path, model)
    reporter = Reporter()
    start = begin(config, reporter)
    lead = Lead(config, reporter, start, Telemetry(config, {}))
    assert start.model.initial == theirs.digest
    begun = load_adapted(config.recipe, model, fetch_initial(config, start.model.initial))
    reporter.resolved(RESOLVED)
    reporter.adapted(begun.coverage)
    lead.resume(lambda snapshot: True)
    summary = TrainingSummary(steps=1, supervised_tokens=1, final_loss=1.0, published_step=1)
    lead.publish(begun.model, summary)
    (file,) = (tmp_path / "out").rglob("manifest.json")
    manifest = Manifest.model_validate_json(file.read_bytes())
    assert manifest.provenance.init_from == theirs.digest
    assert {str(c.role): c.adapted for c in manifest.lora} == {
        "Attention": 15,
        "Experts": 4,
        "MLP": 3,
        "SharedExperts": 6,
    }
    assert manifest.serving is not None
    assert not manifest.serving.vllm
    assert theirs.digest in (file.parent / "README.md").read_text()

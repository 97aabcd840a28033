"""`finetune run` without the trainer: how a job becomes a run of this machine."""

from pathlib import Path

import pytest

from finetune_api.validation import parse
from finetune_contract.runconfig import FILE_NAME, RunConfig
from finetune_local.run import CannotRun, prepare


@pytest.fixture(autouse=True)
def _private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _job(**spec: object):
    body = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"uri": "s3://demo/model", "credentialsSecretRef": {"name": "models"}},
            "data": {
                "train": [{"uri": "s3://demo/a.jsonl"}],
                "credentialsSecretRef": {"name": "rows"},
            },
            "output": {"uri": "s3://demo/out", "credentialsSecretRef": {"name": "out"}},
            "training": {"globalBatchSize": 8, "microBatchSize": 2},
            "workers": {"replicas": 2},
            **spec,
        },
    }
    return parse(body)


def _secrets(tmp_path: Path, *names: str) -> dict[str, Path]:
    for name in names:
        (tmp_path / name).mkdir()
    return {name: tmp_path / name for name in names}


def test_all_processes_of_the_job_run_here_and_the_recipe_stays(tmp_path: Path) -> None:
    run = prepare(_job(), _secrets(tmp_path, "models", "rows", "out"))
    layout = run.config.layout
    assert (layout.workers, layout.processes_per_worker, layout.micro_batch_size) == (1, 2, 2)
    assert layout.job.uid == run.run_id
    assert layout.heartbeat is None
    assert layout.output_uri == "s3://demo/out"
    assert layout.credentials.model == str(tmp_path / "models")
    assert layout.credentials.data == str(tmp_path / "rows")
    assert layout.credentials.output == str(tmp_path / "out")
    stored = RunConfig.model_validate_json((run.directory / FILE_NAME).read_text())
    assert stored == run.config
    assert Path(layout.scratch_dir).is_dir()


def test_what_the_trainer_would_refuse_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    job = _job()
    uneven = job.spec.training.model_copy(update={"micro_batch_size": 3})  # no rule lets it through
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"training": uneven})})
    with pytest.raises(CannotRun, match="microBatchSize"):
        prepare(job, _secrets(tmp_path, "models", "rows", "out"))
    assert not (tmp_path / "state").exists()


def test_output_replaces_the_uri_and_needs_no_secret(tmp_path: Path) -> None:
    run = prepare(_job(), _secrets(tmp_path, "models", "rows"), tmp_path / "adapters")
    assert run.config.layout.output_uri == (tmp_path / "adapters").as_uri()
    assert run.config.layout.credentials.output is None


def test_a_missing_secret_is_named_with_the_option_that_gives_it(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r'spec.data.credentialsSecretRef.*"rows".*--secret rows='):
        prepare(_job(), _secrets(tmp_path, "models", "out"))


def test_a_secret_must_be_a_directory(tmp_path: Path) -> None:
    secrets = _secrets(tmp_path, "models", "out")
    (tmp_path / "rows").write_text("AWS_ACCESS_KEY_ID=x")
    with pytest.raises(CannotRun, match="is not a directory"):
        prepare(_job(), {**secrets, "rows": tmp_path / "rows"})


def test_downloads_go_to_the_jobs_node_cache_or_to_the_users(tmp_path: Path) -> None:
    here = prepare(_job(), _secrets(tmp_path, "models", "rows", "out"))
    assert here.config.layout.cache_dir == str(tmp_path / "cache/finetune/models")
    model = {"uri": "s3://demo/model", "cache": {"hostPath": {"path": "/models"}}}
    named = prepare(_job(model=model), {name: tmp_path / name for name in ("rows", "out")})
    assert named.config.layout.cache_dir == "/models"


def test_the_trackers_secret_is_a_directory_too(tmp_path: Path) -> None:
    tracking = {"type": "WandB", "credentialsSecretRef": {"name": "wandb"}}
    secrets = _secrets(tmp_path, "models", "rows", "out", "wandb")
    run = prepare(_job(tracking=tracking), secrets)
    assert run.config.layout.credentials.tracking == str(tmp_path / "wandb")
    with pytest.raises(CannotRun, match=r"spec.tracking.credentialsSecretRef"):
        prepare(_job(tracking=tracking), {n: p for n, p in secrets.items() if n != "wandb"})


def test_a_run_is_gone_on_with_by_its_id(tmp_path: Path) -> None:
    secrets = _secrets(tmp_path, "models", "rows", "out")
    first = prepare(_job(), secrets)
    again = prepare(_job(), secrets, resume=first.run_id)
    assert (again.run_id, again.directory) == (first.run_id, first.directory)
    assert again.config.layout.job == first.config.layout.job
    assert (first.config.layout.attempt, again.config.layout.attempt) == (1, 2)
    assert prepare(_job(), secrets, resume=first.run_id).config.layout.attempt == 3
    assert prepare(_job(), secrets).run_id != first.run_id


def test_what_is_another_in_the_file_since_the_run_was_started_is_named(tmp_path: Path) -> None:
    secrets = _secrets(tmp_path, "models", "rows", "out")
    first = prepare(_job(), secrets)
    training = {"globalBatchSize": 8, "microBatchSize": 1}  # the latter is no part of the recipe
    assert first.changed == ()
    assert prepare(_job(training=training), secrets, resume=first.run_id).changed == ()
    edited = _job(training={**training, "seed": 3}, lora={"rank": 4, "targets": ["MLP"]})
    again = prepare(edited, secrets, resume=first.run_id)
    assert again.changed == ("lora.rank", "lora.targets", "training.seed")
    assert prepare(edited, secrets, resume=first.run_id).changed == ()


def test_a_run_that_is_not_there_is_not_gone_on_with(tmp_path: Path) -> None:
    secrets = _secrets(tmp_path, "models", "rows", "out")
    with pytest.raises(CannotRun, match="--resume nothing: there is no such run in"):
        prepare(_job(), secrets, resume="nothing")


def _grpo_job():
    rewards = [
        {
            "name": "judge",
            "http": {"url": "http://judge/score", "credentialsSecretRef": {"name": "judge-token"}},
        },
        {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}},
    ]
    rollout = {
        "engine": "OpenAI",
        "uri": "http://localhost:8000",
        "adapterDirectory": "/adapters",
        "credentialsSecretRef": {"name": "vllm"},
    }
    return _job(method={"type": "GRPO", "grpo": {"rewards": rewards, "rollout": rollout}})


def test_code_of_rewards_becomes_files_of_the_run_and_services_get_their_secrets(
    tmp_path: Path,
) -> None:
    names = ("models", "rows", "out", "judge-token", "vllm")
    sources = {"mine": "def score(**kwargs): ...\n"}
    run = prepare(_grpo_job(), _secrets(tmp_path, *names), reward_sources=sources)
    layout = run.config.layout
    assert layout.reward_runner is not None
    assert layout.reward_runner.socket is None, "the launcher starts a runner"
    assert layout.reward_runner.sources is not None
    (path,) = layout.reward_runner.sources.values()
    assert list(layout.reward_runner.sources) == ["mine"]
    assert Path(path).read_text() == sources["mine"]
    assert layout.credentials.rewards == {"judge": str(tmp_path / "judge-token")}
    assert layout.credentials.rollout == str(tmp_path / "vllm")


def test_a_missing_secret_of_a_service_is_named_by_its_reward(tmp_path: Path) -> None:
    secrets = _secrets(tmp_path, "models", "rows", "out", "vllm")
    with pytest.raises(CannotRun, match=r"rewards\[judge\]\.http.*--secret judge-token=DIR"):
        prepare(_grpo_job(), secrets)

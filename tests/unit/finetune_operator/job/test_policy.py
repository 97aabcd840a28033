"""What a job may name outside itself, by the chart's patterns; every field of a kind is judged."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from finetune_api.spec import FineTuneJobSpec
from finetune_contract.model import Reach
from finetune_operator.job.policy import Policy, covers, reach_of, refusals
from support.operator.values import job

# Texts of the spec that name nothing beyond the job's namespace and its pods.
WITHIN = {
    *("beta", "clipHigh", "clipLow", "gate", "temperature", "topP", "weight"),  # numbers
    *("dropout", "learningRate", "maxGradNorm", "warmupRatio", "weightDecay"),
    *("answer", "choices", "definition", "entry", "language", "pattern", "phrases", "tags", "task"),
    *("claimName", "name", "key", "value", "nodeSelector", "project", "revision", "function"),
    *("adapterDirectory", "mountPath", "stop"),  # in the pods; in the model's text
    *("messages", "role", "content", "prompt", "input", "completion"),  # columns of a row
    *("reasoning", "system", "history", "tools"),
    *("config", "split"),  # of the data set that its uri names
    *("inline", "chatTemplateKwargs"),  # of a template that is rendered in the pods
    *("cpu", "memory", "sizeLimit", "limits", "requests"),  # quantities
    *("microBatchSize", "zeroStage"),  # `Auto`
}


def texts(block: type[BaseModel], path: str = "spec") -> Iterator[tuple[str, Any]]:
    """Yield path and field of every free text below a block."""
    for field in block.model_fields.values():
        kinds = {field.annotation, *parts(field.annotation)}
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from texts(kind, f"{path}.{field.alias}")
        if str in kinds:
            yield f"{path}.{field.alias}", field


def parts(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        if part.__hash__ is not None:
            yield part
        yield from parts(part)


def test_every_text_of_a_spec_is_judged_or_known_to_stay_within_the_namespace() -> None:
    judged = {path: reach_of(field) for path, field in texts(FineTuneJobSpec)}
    unknown = {p for p, reach in judged.items() if not reach and p.split(".")[-1] not in WITHIN}
    assert unknown == set()
    named = {path: reach for path, reach in judged.items() if reach}
    assert named == {
        "spec.model.uri": Reach.URI,
        "spec.model.chatTemplate.uri": Reach.URI,
        "spec.model.initFrom": Reach.URI,
        "spec.model.cache.hostPath.path": Reach.HOST_PATH,
        "spec.data.train.uri": Reach.URI,
        "spec.data.eval.uri": Reach.URI,
        "spec.method.grpo.rollout.uri": Reach.SERVER,
        "spec.method.grpo.rewards.http.url": Reach.SERVER,
        "spec.method.grpo.rewards.model.uri": Reach.URI,
        "spec.workers.image": Reach.IMAGE,
        "spec.workers.serviceAccountName": Reach.SERVICE_ACCOUNT,
        "spec.tracking.uri": Reach.URI,
        "spec.output.uri": Reach.URI,
    }


def far_reaching(**more: Any) -> dict[str, Any]:
    """Return stanzas that name something of every kind, wherever the API has a field for it."""
    rewards = [
        {"name": "judge", "http": {"url": "http://judge/score"}},
        {"name": "scorer", "model": {"uri": "hf://o/scorer"}},
    ]
    rollout = {"engine": "OpenAI", "uri": "http://vllm:8000", "adapterDirectory": "/adapters"}
    return {
        "model": {
            "uri": "hf://o/m",
            "initFrom": "s3://old/a1",
            "cache": {"hostPath": {"path": "/models"}},
        },
        "data": {"train": [{"uri": "s3://d/a"}, {"uri": "file:///d/b"}]},
        "method": {"type": "GRPO", "grpo": {"rewards": rewards, "rollout": rollout}},
        "workers": {"image": "ghcr.io/acme/t:1", "serviceAccountName": "trainer"},
        "tracking": {"type": "MLflow", "uri": "https://mlflow.example"},
        "output": {"uri": "s3://adapters/bot"},
        **more,
    }


def test_each_field_is_refused_by_the_value_that_restricts_its_kind() -> None:
    strict = Policy(images=("none",), service_accounts=("none",), uris=("hf://none",))
    found = dict(refusal.split(": ", 1) for refusal in refusals(job(**far_reaching()), strict))
    value = {field: text.split("the chart's ")[1].split()[0] for field, text in found.items()}
    assert value == {
        "spec.model.uri": "policy.uris",
        "spec.model.initFrom": "policy.uris",
        "spec.model.cache.hostPath.path": "policy.hostPath",
        "spec.data.train[0].uri": "policy.uris",
        "spec.data.train[1].uri": "policy.uris",
        "spec.method.grpo.rollout.uri": "policy.uris",
        "spec.method.grpo.rewards[judge].http.url": "policy.uris",
        "spec.method.grpo.rewards[scorer].model.uri": "policy.uris",
        "spec.workers.image": "policy.images",
        "spec.workers.serviceAccountName": "policy.serviceAccounts",
        "spec.tracking.uri": "policy.uris",
        "spec.output.uri": "policy.uris",
    }
    assert found["spec.output.uri"] == (
        "s3://adapters/bot is not among what the chart's policy.uris allows; "
        "name another one, or ask whoever installs the operator to add it there"
    )
    held_out = far_reaching(data={"train": [{"uri": "s3://d/a"}], "eval": [{"uri": "s3://e/b"}]})
    del held_out["method"]
    assert any("spec.data.eval[0].uri" in refusal for refusal in refusals(job(**held_out), strict))


def test_without_patterns_all_is_allowed_but_the_paths_of_nodes() -> None:
    (refusal,) = refusals(job(**far_reaching()), Policy())
    assert refusal == (
        "spec.model.cache.hostPath.path: /models is not among what the chart's policy.hostPath "
        "allows; use a claim, or ask whoever installs the operator to add it there"
    )


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("ghcr.io/acme/*", "ghcr.io/acme/trainer:1"),
        ("ghcr.io/acme/*", "ghcr.io/acme/team/trainer@sha256:1"),
        ("ghcr.io/acme/trainer:*", "ghcr.io/acme/trainer:2"),
        ("trainer-*", "trainer-a"),
        ("s3://team-a-*/*", "s3://team-a-data/runs/bot"),
        ("s3://team-a/*", "s3://team-a/runs/"),
        ("s3://team-a/", "s3://team-a"),
        ("hf://*", "hf://Qwen/Qwen3-8B"),
        ("file://*", "file:///data/rows.jsonl"),
        ("s3://*/*/public", "s3://b/x/public"),
        ("s3://b/[x]?", "s3://b/[x]?"),
    ],
)
def test_what_a_pattern_covers(pattern: str, text: str) -> None:
    assert covers(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("ghcr.io/acme/*", "ghcr.io/acme"),
        ("ghcr.io/acme/*", "ghcr.io/acme-evil/trainer"),
        ("ghcr.io/acme/*", "evil.example/ghcr.io/acme/trainer"),
        ("acme", "acme/trainer"),
        ("*/*", "trainer"),
        ("ghcr.io/acme/trainer:*", "ghcr.io/acme/trainer:1/evil"),
        ("trainer-*", "a-trainer-a"),
        ("s3://team-*-data", "s3://team-evil/x-data"),
        ("s3://team-a-*/*", "s3://team-a-data"),
        ("s3://team-a/*", "s3://team-a/"),
        ("hf://Qwen/*", "hf://qwen/Qwen3-8B"),
        ("s3://b/[xy]", "s3://b/x"),
        ("s3://b/x?", "s3://b/xy"),
        ("", "x"),
    ],
)
def test_what_it_does_not(pattern: str, text: str) -> None:
    assert not covers(pattern, text)


def test_many_stars_take_no_time() -> None:
    assert not covers("*-*-*-*-*-*-*-*-*-*x", "-" * 1000)


def data_refusals(uri: str, *allowed: str) -> list[str]:
    bot = job(data={"train": [{"uri": uri}]}, model={"uri": "hf://o/m"})
    own = ("hf://o/m", "s3://adapters/bot/")
    return refusals(bot, Policy(uris=(*own, *allowed)))


@pytest.mark.parametrize(
    "uri",
    [
        "s3://team-a/../team-b/rows",
        "s3://team-a/./rows",
        "s3://team-a//rows",
        "s3://team-a/%2e%2e/team-b/rows",
        "s3://team-a%2f..%2fteam-b/rows",
        "s3://team-a\\..\\team-b/rows",
        "file:///data//../etc/rows",
        "file:///data/%2e./etc/rows",
    ],
)
def test_a_uri_with_a_second_reading_is_no_match_for_a_pattern(uri: str) -> None:
    (refusal,) = data_refusals(uri, "s3://team-a/*", "s3://*", "file:///data/*")
    assert refusal == (
        f"spec.data.train[0].uri: {uri} can not be compared with the chart's policy.uris; "
        "write it without empty parts, `.`, `..` and backslashes"
    )
    assert data_refusals("s3://team-a/a%20row", "s3://team-a/*") == []
    assert data_refusals("file:///data/rows/", "file:///data/*") == []


def test_an_asterisk_alone_allows_what_no_pattern_can_be_compared_with() -> None:
    assert data_refusals("s3://team-a/../team-b/rows", "*") == []
    both = {"image": "ghcr.io/acme//t:1", "serviceAccountName": "a"}
    assert refusals(job(workers=both), Policy(images=("*",), service_accounts=("*",))) == []


def test_what_is_escaped_is_compared_as_it_is_read() -> None:
    assert len(data_refusals("file:///dat%61/rows", "file:///dat%61/*")) == 1
    assert len(data_refusals("file:///dat%61/rows", "file:///data/*")) == 1
    assert data_refusals("file:///dat%61/rows", "file:///dat*/*") == []


def test_credentials_in_disguise_match_nothing_and_are_not_repeated() -> None:
    (refusal,) = data_refusals("s3://KEY%3Ahunter2%40team-a/rows", "s3://*")
    assert refusal.startswith("spec.data.train[0].uri: put credentials into a Secret")
    assert "hunter2" not in refusal
    assert data_refusals("s3://team-a/rows@1", "s3://*") == []


def test_a_tracker_whose_server_is_not_named_is_allowed_by_no_pattern_but_all() -> None:
    tracking = {"type": "WandB", "credentialsSecretRef": {"name": "wandb"}}
    usual = ("hf://*", "s3://*", "https://wandb.example")
    (refusal,) = refusals(job(tracking=tracking), Policy(uris=usual))
    assert refusal == (
        "spec.tracking.uri: name the server; the chart's policy.uris has to allow it"
    )
    for named in ({"type": "TensorBoard"}, {**tracking, "uri": "https://wandb.example"}):
        assert refusals(job(tracking=named), Policy(uris=usual)) == []
    for everything in ((), ("*",)):
        assert refusals(job(tracking=tracking), Policy(uris=everything)) == []


def test_a_long_text_is_cut_in_the_refusal() -> None:
    (refusal,) = data_refusals("s3://" + "x" * 1000)
    assert len(refusal) < 500


@pytest.mark.parametrize(
    ("allowed", "path", "fits"),
    [
        ("/var/lib/models", "/var/lib/models", True),
        ("/var/lib/models", "/var/lib/models/", True),
        ("/var/lib/models/", "/var/lib/models/team-a", True),
        ("/mnt/*/models", "/mnt/disk-1/models/a", True),
        ("/", "/etc", True),
        ("*", "/etc", True),
        ("/var/lib/models", "/var/lib", False),
        ("/var/lib/models", "/var/lib/models-evil", False),
        ("/var/lib/models", "/var/lib/models/../../etc", False),
        ("/var/lib/models", "/var/lib/models/..", False),
        ("/var/lib/models", "/var/lib//models", False),
        ("/var/lib/models", "//var/lib/models", False),
        ("/", "//", False),
        ("/mnt/*/models", "/mnt/a/b/models", False),
        ("/mnt/*/models", "/mnt/../models", False),
    ],
)
def test_directories_of_nodes(allowed: str, path: str, fits: bool) -> None:
    of = job(model={"uri": "hf://o/m", "cache": {"hostPath": {"path": path}}})
    assert (refusals(of, Policy(host_path=(allowed,))) == []) == fits


def test_servers_are_held_to_the_allowed_hosts_too() -> None:
    spec = far_reaching(workers={}, model={"uri": "hf://o/m"})
    grpo = spec["method"]["grpo"]
    grpo["rewards"][0]["http"]["url"] = "https://Judge.example.org:8443/score"
    grpo["rollout"]["uri"] = "http://169.254.169.254"
    found = dict(refusal.split(": ", 1) for refusal in refusals(job(**spec), Policy()))
    assert list(found) == [
        "spec.method.grpo.rollout.uri",
        "spec.method.grpo.rewards[judge].http.url",
    ]
    assert found["spec.method.grpo.rewards[judge].http.url"].startswith("judge.example.org is ")
    assert refusals(job(**spec), Policy(hosts=("judge.example.org", "169.254.169.254"))) == []


def test_nobody_runs_as_the_operator() -> None:
    policy = Policy(own_account=("team", "finetune-operator"))
    of = job(workers={"serviceAccountName": "finetune-operator"})
    (refusal,) = refusals(of, policy)
    assert refusal == (
        "spec.workers.serviceAccountName: finetune-operator is the operator's own ServiceAccount; "
        "name another one, or none"
    )
    assert refusals(of, Policy(own_account=("finetune-system", "finetune-operator"))) == []
    assert refusals(job(workers={"serviceAccountName": "trainer"}), policy) == []
    (refusal,) = refusals(job(), Policy(own_account=("team", "bot-finetune")))
    assert refusal.startswith("metadata.name: bot-finetune is the operator's own ServiceAccount")

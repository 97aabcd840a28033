"""Settings come from FINETUNE_* variables; a wrong one is named."""

import subprocess
import sys
from dataclasses import fields

import pytest

from finetune_operator.job.policy import Policy
from finetune_operator.settings import InvalidSetting, Settings

IMAGE = {"FINETUNE_TRAINER_IMAGE": "t:1"}


def test_defaults() -> None:
    settings = Settings.from_environment(IMAGE)
    assert settings == Settings(trainer_image="t:1")
    assert settings.bind_address == "127.0.0.1"


def test_every_field_has_its_variable() -> None:
    given = {
        **IMAGE,
        "FINETUNE_TRAINER_PULL_SECRETS": "registry,mirror",
        "FINETUNE_HEARTBEAT_SECONDS": "0.5",
        "FINETUNE_PROGRESS_SECONDS": "1",
        "FINETUNE_START_TIMEOUT_SECONDS": "2",
        "FINETUNE_FENCE_TIMEOUT_SECONDS": "3",
        "FINETUNE_RETRY_BASE_SECONDS": "4",
        "FINETUNE_RETRY_CAP_SECONDS": "5",
        "FINETUNE_MAX_INFRASTRUCTURE_ATTEMPTS": "6",
        "FINETUNE_WATCH_NAMESPACES": "a, b,",
        "FINETUNE_WATCH_SELECTOR": "team=ml",
        "FINETUNE_LEADER_LEASE": "system/lead",
        "FINETUNE_ALLOWED_HOSTS": "judge.example,*.scores.example",
        "FINETUNE_POLICY_HOST_PATH": "/models",
        "FINETUNE_POLICY_IMAGES": "ghcr.io/acme/*,t:1",
        "FINETUNE_POLICY_SERVICE_ACCOUNTS": "trainer-*",
        "FINETUNE_POLICY_URIS": "s3://a/*,hf://*",
        "FINETUNE_NAMESPACE": "finetune-system",
        "FINETUNE_SERVICE_ACCOUNT": "finetune-operator",
        "FINETUNE_BIND_ADDRESS": "0.0.0.0",
        "FINETUNE_BIND_PORT": "7",
        "FINETUNE_LOG_LEVEL": "DEBUG",
        "FINETUNE_LOG_FORMAT": "json",
    }
    assert len(given) == len(fields(Settings))
    assert Settings.from_environment(given) == Settings(
        *(
            "t:1",
            ("registry", "mirror"),
            0.5,
            1,
            2,
            3,
            4,
            5,
            6,
            ("a", "b"),
            "team=ml",
            "system/lead",
        ),
        ("judge.example", "*.scores.example"),
        *(("/models",), ("ghcr.io/acme/*", "t:1"), ("trainer-*",), ("s3://a/*", "hf://*")),
        *("finetune-system", "finetune-operator"),
        *("0.0.0.0", 7, "DEBUG", "json"),
    )


def test_what_jobs_may_name() -> None:
    kinds = {"host_path": ("/m",), "images": ("i",), "service_accounts": ("s",), "uris": ("u",)}
    given = {f"policy_{kind}": patterns for kind, patterns in kinds.items()}
    settings = Settings("t:1", **given, allowed_hosts=("h",), namespace="n", service_account="a")
    assert settings.policy == Policy(**kinds, hosts=("h",), own_account=("n", "a"))
    for outside in (Settings("t:1", namespace="n"), Settings("t:1", service_account="a")):
        assert outside.policy == Policy()


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("FINETUNE_LOG_FORMAT", "xml", "must be text or json, not 'xml'"),
        ("FINETUNE_TRAINER_IMAGE", "", "must name the trainer's image"),
        ("FINETUNE_HEARTBEAT_SECONDS", "soon", "must be a number, not 'soon'"),
        ("FINETUNE_BIND_PORT", "8.5", "must be a number, not '8.5'"),
        ("FINETUNE_RETRY_CAP_SECONDS", "-1", "must be 0 or more, not '-1'"),
        ("FINETUNE_RETRY_CAP_SECONDS", "nan", "must be 0 or more, not 'nan'"),
        ("FINETUNE_RETRY_CAP_SECONDS", "inf", "must be 0 or more, not 'inf'"),
        ("FINETUNE_LOG_LEVEL", "loud", "must be DEBUG or INFO or WARNING or ERROR, not 'loud'"),
        ("FINETUNE_LEADER_LEASE", "lead", "must be NAMESPACE/NAME, not 'lead'"),
        ("FINETUNE_LEADER_LEASE", "/lead", "must be NAMESPACE/NAME, not '/lead'"),
    ],
)
def test_a_wrong_one_is_named_with_what_is_wanted(variable: str, value: str, remedy: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{variable} {remedy}$"):
        Settings.from_environment({**IMAGE, variable: value})


def test_nothing_may_be_waited_for() -> None:
    given = {**IMAGE, "FINETUNE_RETRY_BASE_SECONDS": "0"}
    assert Settings.from_environment(given).retry_base_seconds == 0


def test_the_process_says_so_and_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "finetune_operator"], capture_output=True, text=True, env={}
    )
    assert ended.returncode == 2
    assert ended.stderr == "FINETUNE_TRAINER_IMAGE must name the trainer's image\n"

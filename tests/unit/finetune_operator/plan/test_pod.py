"""What a user writes of pods is what the template says; what they leave out, it leaves out."""

from typing import Any

import pytest

from finetune_operator.plan.volumes import pod_mounts, volumes
from support.operator.values import job, pod_spec


def spec(**workers: Any) -> Any:
    return pod_spec(job(workers=workers))


def test_a_toleration_is_taken_over_word_for_word() -> None:
    asked = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 30,
    }
    assert spec(tolerations=[asked])["tolerations"] == [asked]
    assert "tolerations" not in spec()


@pytest.mark.parametrize(
    "source", [{}, {"medium": "Memory"}, {"sizeLimit": "8Gi"}, {"medium": "Memory", "sizeLimit": 5}]
)
def test_an_empty_dir_says_no_more_than_the_user(source: dict[str, Any]) -> None:
    volume = {"name": "work", "mountPath": "/work", "emptyDir": source}
    (made,) = [v for v in spec(volumes=[volume])["volumes"] if v["name"] == "user-work"]
    assert made["emptyDir"] == {key: str(value) for key, value in source.items()}


GUARANTEED = {"limits": {"cpu": 8, "memory": "64Gi"}}


@pytest.mark.parametrize(
    ("resources", "equal"),
    [
        (GUARANTEED, True),
        ({**GUARANTEED, "requests": {"cpu": "8000m", "memory": "65536Mi"}}, True),
        ({**GUARANTEED, "requests": {"cpu": 4}}, False),
        ({**GUARANTEED, "requests": {"memory": "1Gi"}}, False),
        ({"limits": {"cpu": 8}}, False),
        ({"limits": {"memory": "64Gi"}, "requests": {"cpu": 8}}, False),
        (None, False),
    ],
)
def test_the_reward_runner_leaves_a_guaranteed_pod_so(
    resources: dict[str, Any] | None, equal: bool
) -> None:
    """A pod is Guaranteed if every container, sidecars too, asks for what it is limited to."""
    rewards = [{"name": "tags", "tags": {"tags": ["x"]}}]
    workers = {"resources": resources} if resources else {}
    of = job(workers=workers, method={"type": "GRPO", "grpo": {"rewards": rewards}})
    (runner,) = pod_spec(of)["initContainers"]
    asked = runner["resources"]
    assert (asked["requests"] == asked["limits"]) is equal
    assert asked["limits"] == {"cpu": "2", "memory": str(2**29 + 2**31)}


def test_functions_alone_need_no_memory_for_builtin_rewards() -> None:
    source = {"configMap": {"name": "code", "key": "a.py"}, "memory": "1Gi"}
    of = job(method={"type": "GRPO", "grpo": {"rewards": [{"name": "mine", "python": source}]}})
    (runner,) = pod_spec(of)["initContainers"]
    assert runner["resources"]["limits"]["memory"] == str(2**29 + 2**30)


def test_a_chat_template_in_a_config_map_is_mounted_by_itself() -> None:
    made = job(
        model={"uri": "s3://m/m", "chatTemplate": {"configMap": {"name": "ours", "key": "k"}}}
    )
    found = {v["name"]: (v, mount) for v, mount in volumes(made, 1)}
    source, mount = found["chat-template"]
    items = [{"key": "k", "path": "template.jinja"}]
    assert source == {"name": "chat-template", "configMap": {"name": "ours", "items": items}}
    assert mount["subPath"] == "template.jinja"
    assert mount["readOnly"] is True
    assert pod_mounts(made).chat_template == mount["mountPath"]
    assert pod_mounts(job()).chat_template is None

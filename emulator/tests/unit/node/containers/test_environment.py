"""Variables and arguments as the kubelet resolves them."""

from base64 import b64encode

import pytest

from kube_emulator.client import CONFIG_MAPS, SECRETS, Object, Resource
from kube_emulator.node.containers.environment import (
    ConfigError,
    PodFacts,
    contents,
    expand,
    field_value,
    resolve,
)

POD = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u1",
        "labels": {"app": "x", "a": "b"},
        "annotations": {"note": "n"},
    },
    "spec": {"serviceAccountName": "sa"},
}
FACTS = PodFacts(POD, node_name="node", host_ip="127.0.0.1", pod_ip="127.77.0.9")
OBJECTS = {
    (SECRETS, "s"): {"kind": "Secret", "data": {"KEY": b64encode(b"hidden").decode()}},
    (CONFIG_MAPS, "c"): {"kind": "ConfigMap", "data": {"A": "1", "B": "2"}},
}


async def fetch(resource: Resource, name: str) -> Object | None:
    return OBJECTS.get((resource, name))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("cost: 5$", "cost: 5$"),
    ],
)
def test_expand_follows_kubernetes(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u1"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['absent']", ""),
        ("metadata.labels", 'a="b"\napp="x"\n'),
        ("spec.nodeName", "node"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "127.77.0.9"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_field_references(path: str, expected: str) -> None:
    assert field_value(path, FACTS) == expected


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"unsupported fieldPath: spec\.secret"):
        field_value("spec.secret", FACTS)


async def test_later_sources_win_and_values_see_earlier_ones() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}],
        "env": [
            {"name": "P_A", "value": "own"},
            {"name": "SEEN", "value": "$(P_A) $(P_B) $(KEY) $(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "LATER", "value": "y"},
        ],
    }
    variables = await resolve(container, {"BASE": "b", "KEY": "base"}, FACTS, fetch)
    assert variables == {
        "BASE": "b",
        "P_A": "own",
        "P_B": "2",
        "KEY": "hidden",
        "SEEN": "own 2 hidden $(LATER)",
        "LATER": "y",
    }


async def test_key_and_resource_references() -> None:
    container = {
        "resources": {"limits": {"memory": "1536Mi", "cpu": "1500m"}},
        "env": [
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "KEY"}}},
            {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "A"}}},
            {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            {
                "name": "G",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Gi"}},
            },
            {"name": "N", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
        ],
    }
    variables = await resolve(container, {}, FACTS, fetch)
    assert variables == {"S": "hidden", "F": "p", "C": "1", "M": "1610612736", "G": "2", "N": "2"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "couldn't find key k in Secret ns/s"),
        ({"configMapKeyRef": {"name": "c", "key": "k"}}, "couldn't find key k in ConfigMap ns/c"),
        ({"resourceFieldRef": {"resource": "memory"}}, "unsupported container resource: memory"),
    ],
)
async def test_what_is_missing_is_named(entry: Object, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        await resolve({"env": [{"name": "X", "valueFrom": entry}]}, {}, FACTS, fetch)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    "container",
    [
        {
            "env": [
                {
                    "name": "X",
                    "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}},
                }
            ]
        },
        {
            "env": [
                {
                    "name": "X",
                    "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}},
                }
            ]
        },
        {"envFrom": [{"configMapRef": {"name": "no", "optional": True}}]},
    ],
)
async def test_optional_references_leave_the_variable_out(container: Object) -> None:
    assert await resolve(container, {}, FACTS, fetch) == {}


def test_contents_of_a_config_map_include_binary_data() -> None:
    config_map = {"kind": "ConfigMap", "data": {"t": "ä"}, "binaryData": {"b": "AAE="}}
    assert contents(config_map) == {"t": "ä".encode(), "b": b"\x00\x01"}

"""An object comes back from its record as it was; what is alike takes next to no room."""

import gc
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_operator.cluster.record import Press, Record

RANDOM = random.Random(1)
COMMON = RANDOM.randbytes(600).hex()  # to all pods


def pod(name: str, **status: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "finetune-operator", "finetune.dev/job": name}
    metadata = {"name": name, "uid": name, "resourceVersion": "7", "labels": labels}
    told = {**status, "phase": "Running", "image": COMMON}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": told}


def noise(size: int = 8192) -> str:
    return RANDOM.randbytes(size // 2).hex()


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [
        "",
        "\ud800 half of a pair",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        "\x00\x1b[2J\u2028\x7fé",
        {"\udfff": "as a name"},
        float("1e400"),
        2**70,
        -(2**70),
        1,
        1.0,
        True,
        -0.0,
        5e-324,
        0.1,
        None,
        nested(300),
        {"": [{}, [], ""]},
        "x" * 2**20,
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_an_object_survives_whatever_it_holds_and_whatever_came_before(
    value: Any, before: int
) -> None:
    press = Press()
    for number in range(before):
        press.record(pod(f"p{number}", message=noise()))
    body = pod("bot", value=value)
    record = press.record(body)
    assert (record.uid, record.version) == ("bot", 7)
    assert repr(record.body) == repr(body)  # to == 1, 1.0 and True are one


def test_a_body_is_the_callers_own() -> None:
    record = Press().record(pod("bot"))
    record.body["status"]["phase"] = "Failed"
    assert record.body["status"]["phase"] == "Running"


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def grown(records: list[Record]) -> float:
    """Return how many bytes are held for each record."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / len(records)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("first", ["", noise(), noise(2**20)], ids=["none", "one", "a long one"])
def test_objects_that_are_alike_take_little_whatever_came_first(first: str) -> None:
    press = Press()
    if first:
        press.record(pod("stranger", message=first))
    records = [press.record(pod(f"bot-{number:05}")) for number in range(500)]
    assert grown(records) < 400  # each by itself has 900, as text 1,500


@pytest.mark.usefixtures("traced")
def test_what_a_stranger_writes_is_not_held_with_what_others_do() -> None:
    press, records = Press(), []
    for number in range(200):
        press.record(pod("stranger", message=noise()))
        records.append(press.record(pod(f"bot-{number:05}")))
    assert grown(records) < 1300  # with a sample each 5,000, with none of its own 900


@pytest.mark.usefixtures("traced")
def test_one_long_object_is_not_held_by_others() -> None:
    press = Press()
    press.record(pod("stranger", message=noise(2**20)))
    records = [press.record(pod("bot"))]
    assert grown(records) < 20_000

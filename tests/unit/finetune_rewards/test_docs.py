"""docs/rewards.md and its OpenAPI schema: what they say is what is sent, taken and done."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from jsonschema import Draft202012Validator
from pydantic.alias_generators import to_camel
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from finetune_cli.job_files import read_documents
from finetune_cli.reward_files import read_rewards
from finetune_contract.rewards import SOURCES, Reward
from finetune_rewards.panel import Panel
from finetune_rewards.scores.samples import Item, Samples, Text
from finetune_rewards.services.http import HttpScorer
from support.services.judge import Document, judge_server
from support.services.loopback import free_port

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "rewards.md").read_text()
OPENAPI = yaml.safe_load((DOCS / "reward-openapi.yaml").read_text())


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def schema(name: str) -> Draft202012Validator:
    resource = Resource(contents=OPENAPI, specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("openapi", resource)
    return Draft202012Validator({"$ref": f"openapi#/components/schemas/{name}"}, registry=registry)


@pytest.mark.parametrize("name", OPENAPI["components"]["schemas"])
def test_the_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(OPENAPI["components"]["schemas"][name])
    assert list(schema(name).iter_errors(None)) != []


def test_every_source_has_an_example_that_a_job_takes(tmp_path: Path) -> None:
    shown: set[str] = set()
    for number, text in enumerate(blocks("yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        rewards = yaml.safe_load(text)
        shown |= {key for reward in rewards for key in reward}
        sources = {reward["name"]: path for reward in rewards if "python" in reward}
        assert len(read_rewards(read_documents(path), sources).rewards) == len(rewards)
    assert shown >= set(map(to_camel, SOURCES))


DIALOGUE: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
SAMPLES = {
    "text": Samples(["a", "b"], ["x", "yy"], [[1], [1]], {"n": [1, None], "o": [{}, "t"]}, step=3),
    "messages": Samples(
        [DIALOGUE], [[{"role": "assistant", "content": None, "tool_calls": []}]], [[1]]
    ),
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("size", [1, 8])
async def test_requests_are_as_described(kind: str, size: int) -> None:
    with judge_server() as judge:
        reward = Reward.model_validate(
            {"name": "judge", "http": {"url": judge.url, "batch_size": size}}
        )
        made = HttpScorer(reward, credentials_dir=None, ranks=1, note=print)
        async with aclosing(made) as scorer:
            await scorer.score(SAMPLES[kind])
    assert judge.documents
    for document, request in zip(judge.documents, judge.requests, strict=True):
        schema("Request").validate(document)
        [header] = OPENAPI["paths"]["/score"]["post"]["parameters"]
        assert header["name"] in request.headers
        [sent] = OPENAPI["paths"]["/score"]["post"]["requestBody"]["content"]
        assert request.content_type == sent


@pytest.mark.parametrize(
    "answer",
    [
        {"scores": [1, 0.5]},
        {"scores": [None, -3]},
        {"scores": [1, None], "errors": {"1": "no"}},
        {"scores": [1, 2], "errors": {}, "took": 3},
        {"scores": ["1", 2]},
        {"scores": [True, 2]},
        {"scores": 5},
        {"score": [1, 2]},
        [1, 2],
        {"scores": [1, 2], "errors": [0]},
    ],
)
async def test_answers_are_taken_as_described(answer: Any) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.json_response(answer)

    with judge_server(behave) as judge:
        reward = Reward.model_validate(
            {"name": "judge", "http": {"url": judge.url, "batch_size": 2}}
        )
        made = HttpScorer(reward, credentials_dir=None, ranks=1, note=print)
        async with aclosing(made) as scorer:
            found = (await scorer.score(SAMPLES["text"])).items
    errors = {str(index) for index, item in enumerate(found) if item.error is not None}
    valid = schema("Answer").is_valid(answer)
    assert errors == (answer.get("errors", {}).keys() if valid else errors)
    assert bool(errors) == (not valid or bool(answer.get("errors")))


@pytest.fixture
def example_server() -> Iterator[str]:
    """Run the page's own server, as a user would."""
    [source] = [text for text in blocks("python") if text.startswith("# judge.py")]
    assert len([line for line in source.splitlines()[1:] if line]) <= 10
    port = free_port()
    assert '("", 8080)' in source
    source = source.replace('("", 8080)', f'("127.0.0.1", {port})')
    server = subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.DEVNULL)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/score"
    finally:
        server.kill()
        server.wait()


def test_the_example_server_works(example_server: str) -> None:
    reward = Reward.model_validate({"name": "a", "http": {"url": example_server, "batch_size": 2}})
    texts: list[Text] = ["a", "bb", "ccc"]
    with Panel.open([reward]) as panel:
        found = panel.score(Samples(["?"] * 3, texts, [[1]] * 3))["a"].items
    assert found == [Item(score=1.0), Item(score=2.0), Item(score=3.0)]


def test_the_example_function_works() -> None:
    [source] = [text for text in blocks("python") if text.startswith("# style.py")]
    names: dict[str, Any] = {}
    exec(source, names)
    assert names["score"](prompts=["?"] * 2, completions=["a.", "b"], answer=[1, 2]) == [1.0, 0.0]


def test_the_example_rows_are_json() -> None:
    for text in blocks("json"):
        for line in text.splitlines():
            json.loads(line)

"""What `finetune reward test` reads: rewards with their source, and rows with completions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.job import GROUP, KIND, VERSION
from finetune_api.rewards import Reward as ApiReward
from finetune_cli.console import readable, refusal
from finetune_cli.job_files import Documents, parsed
from finetune_contract.model import HTTP_URI
from finetune_contract.rewards import Reward
from finetune_operator.job.method import reward_recipe
from finetune_rewards.reading.thought import opened_by
from finetune_rewards.scores.samples import Samples, Text, Turn

PROMPT_FIELDS = ("prompt", "messages")
COMPLETION, COMPLETIONS, COMPLETION_IDS = "completion", "completions", "completion_ids"

_WHERE = "spec.method.grpo."
_REMEDY = (
    f"put what a model could answer into the column {COMPLETION!r}, or several such answers, good "
    f"and bad ones, as a list into {COMPLETIONS!r}; --completions names another column: that of "
    "the right answers is a first try"
)


@dataclass(frozen=True)
class RewardSet:
    """Rewards, the source text of those that are code, and the Secret that each service names."""

    rewards: tuple[Reward, ...]
    sources: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Completions:
    """Samples, and of each the line of its row and its place among the row's completions."""

    samples: Samples
    places: list[tuple[int, int]]


def read_rewards(
    file: Documents, sources: dict[str, Path], urls: dict[str, str] | None = None
) -> RewardSet:
    """Return the rewards of a file.

    `sources` are files of code and `urls` addresses to try services at, by the reward's name. Exits
    with code 3 and says where, if a reward or its source can not be read.
    """
    found, urls = _rewards(file), urls or {}
    for option, kind, names in (("--source", "python", sources), ("--url", "http", urls)):
        unknown = names.keys() - {r.name for r in found if getattr(r, kind) is not None}
        if unknown:
            said = f"{file.name} has no {kind} reward of that name"
            raise refusal(f"{option} {min(unknown)}: {said}")
    found = [_at(reward, urls[reward.name]) if reward.name in urls else reward for reward in found]
    maps = _config_maps(file.documents)
    return RewardSet(
        tuple(reward_recipe(reward) for reward in found),
        {r.name: _source(file.name, r, sources, maps) for r in found if r.python is not None},
        {
            r.name: r.http.credentials_secret_ref.name
            for r in found
            if r.http is not None and r.http.credentials_secret_ref is not None
        },
    )


def _at(reward: ApiReward, url: str) -> ApiReward:
    assert reward.http is not None
    if not re.fullmatch(HTTP_URI, url):
        raise refusal(f"--url {reward.name}: {url!r} is no address of a service")
    return reward.model_copy(update={"http": reward.http.model_copy(update={"url": url})})


def read_rows(path: Path, column: str | None, header: str = "") -> Completions:
    """Return every completion of the rows; `header` is what the template puts behind messages.

    Exits with code 3 and says where, if there are none or a row has none.
    """
    taken = {*PROMPT_FIELDS, COMPLETIONS, COMPLETION_IDS} - {column}
    places: list[tuple[int, int]] = []
    prompts: list[Text] = []
    completions: list[Text] = []
    ids: list[list[int]] = []
    rows: list[dict[str, Any]] = []
    for number, row in _lines(path):
        prompt = next((row[name] for name in PROMPT_FIELDS if name in row), "")
        for place, completion in enumerate(_completions(f"{path}:{number}", row, column)):
            places.append((number, place))
            prompts.append(prompt)
            completions.append(_turn(completion) if isinstance(prompt, list) else completion)
            ids.append(_ids(f"{path}:{number}", row))
            rows.append({name: value for name, value in row.items() if name not in taken})
    if not rows:
        raise refusal(f"{path}: has no rows")
    names = sorted({name for row in rows for name in row})
    columns = {name: [row.get(name) for row in rows] for name in names}
    opened = [opened_by(prompt if isinstance(prompt, str) else header) for prompt in prompts]
    return Completions(Samples(prompts, completions, ids, columns, opened=opened), places)


def _text(path: Path) -> str:
    with readable(str(path)):
        return path.read_text(encoding="utf-8")


def _rewards(file: Documents) -> Sequence[ApiReward]:
    lists = [document for document in file.documents if isinstance(document, list)]
    jobs = [d for d in file.documents if isinstance(d, dict) and d.get("kind") == KIND]
    if len(lists) + len(jobs) != 1:
        raise refusal(
            f"{file.name}: give one {KIND}, or one list of rewards as in {_WHERE}rewards; "
            f"it holds {len(jobs)} and {len(lists)}"
        )
    job = parsed(file, jobs[0]) if jobs else parsed(file, _job_of(lists[0]), f"{_WHERE}rewards")
    if job.spec.method.grpo is None:
        raise refusal(f"{file.name}: the job has no rewards: spec.method.type is not GRPO")
    return job.spec.method.grpo.rewards


def _job_of(rewards: list[Any]) -> dict[str, Any]:
    """Return a job with the rewards, so that a job's own rules judge them."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": "rewards"},
        "spec": {
            "model": {"uri": "s3://bucket/model"},
            "data": {"train": [{"uri": "s3://bucket/rows.jsonl"}]},
            "output": {"uri": "s3://bucket/output"},
            "method": {"type": "GRPO", "grpo": {"rewards": rewards}},
        },
    }


def _config_maps(documents: list[Any]) -> dict[tuple[str, str], str]:
    """Return the texts of the file's ConfigMaps by name and key."""
    maps = [d for d in documents if isinstance(d, dict) and d.get("kind") == "ConfigMap"]
    return {
        (_mapping(found.get("metadata")).get("name", ""), key): str(text)
        for found in maps
        for key, text in _mapping(found.get("data")).items()
    }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _source(
    file: str,
    reward: ApiReward,
    sources: dict[str, Path],
    maps: dict[tuple[str, str], str],
) -> str:
    if reward.name in sources:
        return _text(sources[reward.name])
    assert reward.python is not None
    wanted = reward.python.config_map
    if (wanted.name, wanted.key) not in maps:
        raise refusal(
            f"{file}: reward {reward.name}: its code is not here: add the ConfigMap "
            f"{wanted.name!r} with the key {wanted.key!r} to the file, or give "
            f"--source {reward.name}=FILE"
        )
    return maps[wanted.name, wanted.key]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # Not splitlines: JSON may hold what other standards take for a line's end.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise refusal(f"{path}:{number}: is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise refusal(f"{path}:{number}: is not a JSON object")
            yield number, row


def _completions(where: str, row: dict[str, Any], column: str | None) -> list[Text]:
    """Return a row's completions: those of the named column, or of the usual ones."""
    names = (COMPLETIONS, COMPLETION) if column is None else (column,)
    name = next((name for name in names if row.get(name) not in (None, [])), None)
    if name is None:
        raise refusal(f"{where}: has no {' or '.join(map(repr, names[::-1]))}: {_REMEDY}")
    value = row[name]
    found = value if isinstance(value, list) and not _is_dialogue(value) else [value]
    for completion in found:
        if not isinstance(completion, str | int | float) and not _is_dialogue(completion):
            raise refusal(f"{where}: {name!r} holds neither text nor messages")
    return [one if isinstance(one, list) else str(one) for one in found]


def _ids(where: str, row: dict[str, Any]) -> list[int]:
    found = row.get(COMPLETION_IDS) or []
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        raise refusal(f"{where}: {COMPLETION_IDS!r} is not a list of token ids")
    return found


def _is_dialogue(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and "role" in turn for turn in value)
    )


def _turn(completion: Text) -> list[Turn]:
    """Return a completion as the trainer gives it where prompts are messages."""
    if isinstance(completion, list):
        return completion
    return [{"role": "assistant", "content": completion}]

"""What is said over the runner's socket, and between the runner and its workers.

A client asks `describe` or `score`; samples travel as the body, so that the runner passes them on
unread. With them goes which code is to score them (`revisions`, by the reward's name): a runner
that was started again may have read other code. Every message of a client names the version;
another one is refused by name. What it is answered is in `replies`: workers start without pydantic.
"""

from __future__ import annotations

import base64
import json
from array import array
from typing import NamedTuple

from finetune_contract.foreign import Unreadable, parse
from finetune_contract.reasons import Reason
from finetune_rewards.scores.answers import LONGEST_ERROR, item, one_line
from finetune_rewards.scores.samples import Item, Samples

VERSION = 2
ID_TYPE = "i"  # 32 bits of this machine's: a Unix socket leads to no other


class BadAnswer(Exception):
    """An answer is not what was asked for."""


class Problem(NamedTuple):
    """Why a reward can not be used at all: the reason of a RewardError, and its message."""

    reason: Reason
    message: str


def pack_samples(samples: Samples) -> bytes:
    """Return samples as JSON."""
    return json.dumps(
        {
            "prompts": samples.prompts,
            "completions": samples.completions,
            "completionIds": [_packed(ids) for ids in samples.completion_ids],
            "columns": samples.columns,
            "step": samples.step,
            "opened": samples.opened,
        }
    ).encode()


def unpack_samples(body: bytes) -> Samples:
    """Return what pack_samples was given."""
    value = json.loads(body)
    return Samples(
        value["prompts"],
        value["completions"],
        [_unpacked(ids) for ids in value["completionIds"]],
        value["columns"],
        value["step"],
        value["opened"],
    )


def _packed(ids: list[int]) -> str:
    """Return token ids as base64: JSON's numbers would take ten times as long to write and read."""
    return base64.b64encode(array(ID_TYPE, ids)).decode()


def _unpacked(text: str) -> list[int]:
    return array(ID_TYPE, base64.b64decode(text)).tolist()


def pack_items(items: list[Item]) -> bytes:
    """Return items as JSON: a number, null where a reward abstains, a text for an error."""
    return json.dumps([one.score if one.error is None else one.error for one in items]).encode()


def unpack_items(body: bytes, count: int) -> list[Item]:
    """Return `count` items; raise BadAnswer where they are anything else, NaN included."""
    try:
        values = parse(body)
    except Unreadable as error:
        raise BadAnswer(f"the answer {error}") from error
    if not isinstance(values, list) or len(values) != count:
        raise BadAnswer(f"the answer does not hold {count} items")
    return [_item(value) for value in values]


def most_answer(count: int) -> int:
    """Return how many bytes the answer for `count` completions may have."""
    return count * (64 + 12 * LONGEST_ERROR)  # JSON writes a character in 12 bytes at most


def _item(value: object) -> Item:
    if isinstance(value, str):
        return Item(error=one_line(value))
    found = item(value)
    if found.error is not None:
        raise BadAnswer("an item is neither a finite number, null nor a text")
    return found

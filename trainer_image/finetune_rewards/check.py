"""Try isolated rewards on a few rows, before anything that costs a GPU starts.

The same runner as beside the trainer scores an answer of each row's own and then an empty one. What
would fail on every completion of a run is refused; what merely looks odd is said.
"""

from __future__ import annotations

from finetune_contract.start import heed_sigterm

if __name__ == "__main__":
    heed_sigterm()

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.result import Outcome, Result
from finetune_contract.rewards import Reward
from finetune_rewards.document import read_rewards
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import pack_samples
from finetune_rewards.scores.columns import check_columns
from finetune_rewards.scores.errors import RewardError, RewardInvalid, error_of
from finetune_rewards.scores.samples import Answer, Samples, Text, text_of

log = logging.getLogger(__name__)

# Columns that hold what a good completion is, or contains.
ANSWERS = ("completion", "answer", "solution")


async def check(
    rewards: Sequence[Reward], sources: Mapping[str, Path], rows: Sequence[dict[str, Any]]
) -> list[str]:
    """Return a line on each reward: what it scored, and what looks wrong with that.

    Args:
        rewards: isolated ones.
        sources: the files of those that are code, by the reward's name.
        rows: {"prompt": text or messages, "columns": {...}} each; at least one.

    Raises:
        RewardInvalid: if a reward does not load or can score nothing, in words for the user.
        SandboxUnavailable: if this kernel can not confine it.
        RewardUnavailable: if it takes too long to load, which it may not do the next time.
    """
    runner = Runner(rewards, sources)
    try:
        await runner.start()
        for described in runner.describe():
            if described.problem is not None:
                raise error_of(*described.problem)
        check_columns(rewards, {name for row in rows for name in row["columns"]})
        tries = [_samples(rows, answered=True), _samples(rows, answered=False)]
        answers = [await runner.score(pack_samples(s), len(s)) for s in tries]
    finally:
        await runner.stop()
    return [_verdict(reward, *(found[reward.name] for found in answers)) for reward in rewards]


def _samples(rows: Sequence[dict[str, Any]], *, answered: bool) -> Samples:
    names = sorted({name for row in rows for name in row["columns"]})
    completions = [_completion(row, answered) for row in rows]
    return Samples(
        prompts=[row["prompt"] for row in rows],
        completions=completions,
        # No tokenizer is here; a word stands for a token.
        completion_ids=[[0] * len(text_of(completion).split()) for completion in completions],
        columns={name: [row["columns"].get(name) for row in rows] for name in names},
    )


def _completion(row: dict[str, Any], answered: bool) -> Text:
    """Return the row's own answer, the prompt's text if it has none; or an empty completion."""
    columns, prompt = row["columns"], row["prompt"]
    text = ""
    if answered:
        own = [columns[name] for name in ANSWERS if isinstance(columns.get(name), str)]
        last = prompt if isinstance(prompt, str) else prompt[-1].get("content")
        text = own[0] if own else str(last or "")
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _verdict(reward: Reward, answered: Answer, empty: Answer) -> str:
    """Return what is to be said of a reward; raise RewardInvalid if it scored nothing at all."""
    items = [*answered.items, *empty.items]
    errors = [item.error for item in items if item.error is not None]
    scores = [item.score for item in items if item.score is not None]
    if len(errors) == len(items):
        raise RewardInvalid(f"reward {reward.name}: it fails on every row: {errors[0]}")
    said = [f"reward {reward.name}: {len(scores)} scores"]
    if scores:
        said[0] += f" from {min(scores):g} to {max(scores):g}"
        if min(scores) == max(scores) and reward.weight:  # a gate need not tell them apart
            said.append("all are equal: if the model's are too, nothing is learned from them")
    else:
        said.append("it abstained from every row")
    if errors:
        kind = "empty completions" if len(errors) == len(empty.items) else "some completions"
        said.append(f"it fails on {kind}: {errors[-1]}")
    return "; ".join(said)


def main() -> int:
    """Write the Result; return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s check %(levelname)s %(message)s")
    arguments = _arguments()
    try:
        rewards = read_rewards(arguments.rewards)
        rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()]
        lines = asyncio.run(check(rewards, dict(arguments.source), rows))
        outcome, reason, message = Outcome.SUCCEEDED, Reason.SUCCEEDED, "; ".join(lines)
    except RewardError as error:
        outcome, reason, message = Outcome.FAILED, error.reason, error.message
    log.info("%s: %s", reason, message)
    result = Result(attempt=1, outcome=outcome, reason=reason, message=message)
    arguments.termination_log.write_text(result.encode())
    return exit_code(reason)


def _source(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_rewards.check", description=__doc__)
    parser.add_argument("--rewards", type=Path, required=True, help="JSON list of rewards")
    parser.add_argument("--rows", type=Path, required=True, help="JSON Lines of sample_rows")
    parser.add_argument("--source", type=_source, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

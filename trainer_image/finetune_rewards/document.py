"""The rewards that a runner is told, a JSON list in a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from finetune_contract.model import is_as_told
from finetune_contract.rewards import DIGEST_VARIABLE, Reward
from finetune_rewards.scores.answers import one_line
from finetune_rewards.scores.errors import RewardChanged, RewardInvalid

_REWARDS = TypeAdapter(list[Reward])


def read_rewards(path: Path) -> list[Reward]:
    """Return the rewards of a file.

    Raises:
        RewardChanged: if it is another than the environment says, where that says any: of what
            someone put in its place nothing is read.
        RewardInvalid: if it can not be read as rewards.
    """
    try:
        text = path.read_bytes()
        if not is_as_told(text, DIGEST_VARIABLE):
            raise RewardChanged(
                f"{path} is not what the operator wrote: someone changed the object that it is "
                "mounted from; the next attempt is given one of its own"
            )
        return _REWARDS.validate_json(text)
    except (OSError, ValidationError) as error:
        said = f"the reward runner can not read {path}: {one_line(str(error))}"
        raise RewardInvalid(said) from error

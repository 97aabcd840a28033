"""A runner scores by the rewards that the operator wrote, and by no others."""

from pathlib import Path

import pytest

from finetune_contract.model import sha256_digest
from finetune_contract.rewards import DIGEST_VARIABLE
from finetune_rewards.document import read_rewards
from finetune_rewards.scores.errors import RewardChanged, RewardInvalid

MINE = b'[{"name": "right", "exact": {}}]'


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DIGEST_VARIABLE, sha256_digest(MINE))
    return tmp_path / "rewards.json"


def test_what_the_operator_wrote_is_read(mounted: Path) -> None:
    mounted.write_bytes(MINE)
    assert [reward.name for reward in read_rewards(mounted)] == ["right"]


@pytest.mark.parametrize("theirs", [MINE + b" ", b"no rewards at all", b""])
def test_of_what_someone_put_in_its_place_nothing_is_read(mounted: Path, theirs: bytes) -> None:
    mounted.write_bytes(theirs)
    with pytest.raises(RewardChanged, match="is not what the operator wrote"):
        read_rewards(mounted)


def test_without_an_operator_any_rewards_are_read(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DIGEST_VARIABLE)
    mounted.write_bytes(MINE + b" ")
    assert len(read_rewards(mounted)) == 1


def test_a_file_that_is_not_there_is_named(mounted: Path) -> None:
    with pytest.raises(RewardInvalid, match=r"rewards\.json"):
        read_rewards(mounted)

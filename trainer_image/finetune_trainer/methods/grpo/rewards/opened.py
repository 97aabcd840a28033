"""The rewards of a run, opened on every rank: each asks its own pod's runner and models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from finetune_contract.artifact import RewardIdentity
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_rewards.panel import Panel
from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.scores.errors import RewardError
from finetune_trainer.methods.grpo.recipe import grpo_of
from finetune_trainer.methods.grpo.rewards.reward_model import RewardModels
from finetune_trainer.methods.grpo.rewards.runner import own_socket_path
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure


@contextmanager
def opened_panel(config: RunConfig, judges: RewardModels, ranks: Ranks) -> Iterator[Panel]:
    """Yield the rewards. Raises Failure for one that can not be used."""
    layout = config.layout
    with ExitStack() as stack:
        with failing_as_told():
            opening = Panel.open(
                grpo_of(config.recipe).rewards,
                runner=RunnerClient(own_socket_path(layout)),
                credentials=layout.credentials.rewards,
                model_scorers=judges.scorers,
                models=judges.identities,
                ranks=ranks.world,
            )
            panel = stack.enter_context(opening)
        yield panel


def identities(panel: Panel, ranks: Ranks) -> tuple[RewardIdentity, ...]:
    """Return what users' rewards are, once every rank's runner has loaded them.

    All ranks must call it. Raises Failure: RewardInvalid, SandboxUnavailable, and InputChanged
    where pods were started with different code.
    """

    def ask() -> tuple[RewardIdentity, ...]:
        with failing_as_told():
            return panel.identities()

    ours, *others = ranks.everywhere(ask)
    for rank, theirs in enumerate(others, start=1):
        if theirs != ours:
            names = ", ".join(sorted({reward.name for reward in {*ours} ^ {*theirs}}))
            raise Failure(
                Reason.INPUT_CHANGED,
                f"the code of reward {names} was changed while the pods were starting: ranks 0 and "
                f"{rank} do not hold the same",
                rank=rank,
            )
    return ours


@contextmanager
def failing_as_told() -> Iterator[None]:
    """Raise what of a reward ends a run as the trainer's Failure."""
    try:
        yield
    except RewardError as error:
        raise Failure(error.reason, error.message) from error

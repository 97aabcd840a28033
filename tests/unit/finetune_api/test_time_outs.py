"""The longest that a reward may take, as the API allows it, ends before whoever waits gives up."""

from annotated_types import Le

from finetune_api.rewards import HttpReward, PythonReward
from finetune_contract.model import Message
from finetune_rewards.runner import client, station
from finetune_rewards.runner import isolated as runner
from finetune_rewards.services import circuit
from finetune_trainer.process.distributed import AGREEMENT_TIMEOUT, COLLECTIVE_TIMEOUT


def most(model: type[Message], field: str) -> int:
    """Return the largest value that the API takes."""
    (bound,) = (m.le for m in model.model_fields[field].metadata if isinstance(m, Le))
    assert isinstance(bound, int)
    return bound


def test_a_runner_answers_before_its_client_gives_up() -> None:
    """A batch may wait for its turn, for itself, and for a worker that replaces one that died."""
    singly = station.LOAD_SECONDS + runner.BUILTIN_SECONDS  # after the last look at the time
    assert station.MOST_SECONDS + singly < client.ANSWER_SECONDS


def test_the_slowest_reward_may_wait_for_a_turn() -> None:
    scoring = max(most(PythonReward, "timeout_seconds"), runner.BUILTIN_BATCH_SECONDS)
    assert station.MOST_SECONDS - scoring >= 400


def test_eight_processes_with_the_default_time_out_have_their_turns() -> None:
    default = PythonReward.model_fields["timeout_seconds"].default
    assert 8 * default <= station.MOST_SECONDS


def test_a_client_gives_up_before_the_other_ranks_do() -> None:
    """Not even a collective of the device's group, which has the shortest patience, is to end."""
    assert COLLECTIVE_TIMEOUT.total_seconds() > client.AWAY_SECONDS + client.ANSWER_SECONDS


def test_a_service_that_is_down_ends_the_run_before_the_other_ranks_do() -> None:
    """The request that finds it out had all its retries, and the last probe all its time."""
    sent = most(HttpReward, "timeout_seconds")
    wait = circuit.Waits().longest + circuit.LONGEST_RETRY_AFTER_SECONDS
    tries = (most(HttpReward, "retries") + 1) * (sent + wait)
    assert tries + most(HttpReward, "pause_seconds") + sent < AGREEMENT_TIMEOUT.total_seconds()

"""The trial of rewards: what is tried, what lets the first attempt start."""

import json
from typing import Any

import pytest

from finetune_api.status import FineTuneJobStatus, RewardCheckState
from finetune_contract.reasons import Reason
from finetune_operator.events import Transition, transitions
from finetune_operator.judge.decision import Course
from finetune_operator.judge.status import status_of
from support.operator.reward_trials import (
    GOOD,
    PYTHON,
    SETTINGS,
    decided,
    deleted,
    digest,
    ended,
    failure,
    grpo,
    pod,
    record,
    seen,
    told,
    tried_by,
)
from support.operator.values import NOW, at, stamp


def test_code_is_tried_before_the_first_attempt() -> None:
    of = grpo()
    decision = decided(of, seen(), None, 0)
    assert decision.attempts == ()
    assert decision.run is None
    assert decision.run_check
    assert decision.reward_check == record(of, pod_uid=None)
    assert told(decision) == (Course.PROGRESSING, Reason.PENDING)


@pytest.mark.parametrize(
    "reward",
    [{"name": "m", "model": {"uri": "hf://a/b"}}, {"name": "h", "http": {"url": "http://j"}}],
)
def test_a_job_of_services_and_models_starts_at_once(reward: dict[str, Any]) -> None:
    of = grpo(reward)
    decision = decided(of, seen(), None)
    assert decision.run is not None
    assert status_of(of, seen(), decision, NOW, SETTINGS).reward_check is None


def test_builtin_rewards_are_tried_too() -> None:
    """A pattern that does not compile is found without a GPU."""
    of = grpo({"name": "tags", "tags": {"tags": ["x"]}})
    decision = decided(of, seen(), None)
    assert decision.run is None
    assert decision.run_check
    document = tried_by(of)["metadata"]["annotations"]["finetune.dev/rewards"]
    assert [reward["name"] for reward in json.loads(document)] == ["tags"]


def test_what_is_not_tried_is_named_from_the_beginning_to_the_end() -> None:
    others = [
        {"name": "judge", "http": {"url": "http://j"}},
        {"name": "m", "model": {"uri": "hf://a/b"}},
    ]
    of = grpo(PYTHON, *others)
    left_out = "; not tried, as services or models: judge, m"
    for observed, known in [(seen(), None), (seen(pod(of)), record(of))]:
        assert decided(of, observed, known).verdict.message.endswith(left_out)
    passed = decided(of, seen(ended(of, GOOD)), record(of)).reward_check
    assert passed is not None
    assert passed.message == f"16 scores{left_out}"


def test_code_that_scores_lets_the_attempt_start_in_the_same_pass() -> None:
    of = grpo()
    decision = decided(of, seen(ended(of, GOOD)), record(of))
    assert [a.number for a in decision.attempts] == [1]
    assert decision.reward_check is not None
    assert decision.reward_check.state is RewardCheckState.PASSED
    assert decision.reward_check.message == "16 scores"
    assert decision.reward_check.end_time == stamp(30)
    assert deleted(decision) == [], "its log can be read"


def test_a_good_word_with_a_bad_exit_code_is_none() -> None:
    """Text that the user's code prints can end up where a Result is looked for."""
    of = grpo()
    decision = decided(of, seen(ended(of, GOOD, code=1)), record(of))
    assert decision.attempts == ()
    assert decided(of, seen(ended(of, failure(Reason.REWARD_INVALID))), record(of)).run is None


def test_the_word_of_a_pod_that_is_not_the_one_on_record_does_not_count() -> None:
    of = grpo()
    other = ended(of, GOOD, gone=True, uid="another")
    for pod_uid in (None, "check"):
        assert decided(of, seen(other), record(of, pod_uid=pod_uid)).run is None
    both = seen(other, ended(of, GOOD, gone=True))
    assert decided(of, both, record(of)).run is not None


def test_a_good_word_that_the_pod_takes_with_it_counts() -> None:
    of = grpo()
    assert decided(of, seen(ended(of, GOOD, gone=True)), record(of)).run is not None


def test_a_check_that_passed_is_not_repeated() -> None:
    of = grpo()
    passed = record(of, state="Passed")
    started = decided(of, seen(), passed)
    assert started.run is not None
    assert started.reward_check == passed
    other = grpo({**PYTHON, "python": {**PYTHON["python"], "function": "other"}})
    assert decided(other, seen(), passed).run is None, "what passed was another function"


def test_a_pod_of_another_spec_goes_first() -> None:
    of = grpo()
    decision = decided(of, seen(pod(of, digest="older")), record(of, plan="older"))
    assert deleted(decision) == ["bot-rewards"]
    assert not decision.run_check
    assert decision.reward_check is not None
    assert decision.reward_check.plan == digest(of)


def test_time_that_went_into_another_spec_does_not_count() -> None:
    of = grpo(runPolicy={"activeDeadlineSeconds": 60})
    decision = decided(of, seen(), record(of, plan="older"), 3600)
    assert decision.run_check
    assert decision.reward_check == record(of, start_time=stamp(3600), pod_uid=None)


def test_a_suspended_job_waits_without_its_pod_and_begins_the_check_anew() -> None:
    of = grpo(runPolicy={"suspend": True})
    decision = decided(of, seen(pod(of)), record(of))
    assert told(decision) == (Course.SUSPENDED, Reason.SUSPENDED)
    assert deleted(decision) == ["bot-rewards"]
    paused = decision.reward_check
    assert paused == record(of, pod_uid=None, start_time=None)
    going = decided(grpo(), seen(pod(of, due=at(40))), paused)
    assert (deleted(going), going.run_check) == (["bot-rewards"], False)
    assert going.reward_check == paused, "a pod that was told to go is not counted"
    passed = record(of, state="Passed")
    assert decided(of, seen(ended(of, GOOD)), passed).reward_check == passed
    failed = record(of, failures=1, end_time=stamp(9))
    cleared = record(of, failures=1, pod_uid=None, start_time=None)
    assert decided(of, seen(pod(of, due=at(40))), failed).reward_check == cleared
    assert deleted(decided(of, seen(pod(of, due=at(40))), failed)) == [], "it is going"
    late = decided(of, seen(pod(of, due=at(40))), failed, 40)
    assert deleted(late) == ["bot-rewards"], "nothing lets it go on a node that does not answer"


def test_the_end_of_each_pod_is_an_event() -> None:
    of = grpo()
    old = FineTuneJobStatus(reward_check=record(of))
    lost = FineTuneJobStatus(reward_check=record(of, end_time=stamp(9), message="was lost"))
    passed = record(of, state="Passed", end_time=stamp(30), message="16 scores")
    good = FineTuneJobStatus(reward_check=passed)
    assert list(transitions(old, lost)) == [Transition(True, "RewardsTried", "was lost")]
    assert list(transitions(lost, lost)) == []
    assert list(transitions(lost, good)) == [Transition(False, "RewardsTried", "16 scores")]
    assert list(transitions(FineTuneJobStatus(), old)) == []

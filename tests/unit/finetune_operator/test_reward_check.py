"""The trial of a user's reward functions: what it decides from what is seen of its pod."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.status import FineTuneJobStatus, RewardCheckState, RewardCheckStatus
from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, Result
from finetune_operator.decide import decide, refused
from finetune_operator.decision import Course, Decision
from finetune_operator.events import Transition, transitions
from finetune_operator.observe import Child, ContainerEnd, Observed, Obstacle, Pod
from finetune_operator.plan.reward_check import reward_check
from finetune_operator.settings import Settings
from finetune_operator.status import status_of
from support.operator_values import NOW, UID, at, job, stamp

SETTINGS = Settings(
    trainer_image="trainer:1",
    retry_base_seconds=10,
    start_timeout_seconds=60,
    max_infrastructure_attempts=3,
)
PYTHON = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}
GOOD = Result(attempt=1, outcome=Outcome.SUCCEEDED, reason=Reason.SUCCEEDED, message="16 scores")


def grpo(*rewards: dict[str, Any], **spec: Any) -> FineTuneJob:
    return job(method={"type": "GRPO", "grpo": {"rewards": list(rewards) or [PYTHON]}}, **spec)


def plan(of: FineTuneJob) -> str:
    wanted = reward_check(of, "trainer:1")
    assert wanted is not None
    return wanted.plan


def record(of: FineTuneJob, **fields: Any) -> RewardCheckStatus:
    usual = {"state": "Running", "plan": plan(of), "start_time": stamp(0), "pod_uid": "check"}
    return RewardCheckStatus.model_validate({**usual, **fields})


def pod(of: FineTuneJob, **fields: Any) -> Pod:
    usual: dict[str, Any] = {
        "name": "bot-rewards",
        "uid": "check",
        "attempt": 1,
        "node_rank": 0,
        "phase": "Running",
        "reason": "",
        "message": "",
        "disrupted": None,
        "scheduled": at(1),
        "running": True,
        "due": None,
        "gone": False,
        "obstacle": None,
        "init_failure": None,
        "end": None,
        "plan": plan(of),
    }
    return Pod(**{**usual, **fields})


def ended(of: FineTuneJob, result: Result | None, code: int = 0, **fields: Any) -> Pod:
    end = ContainerEnd(code, "", at(20), result)
    return pod(of, phase="Failed" if code else "Succeeded", running=False, end=end, **fields)


def failure(reason: Reason, message: str = "told") -> Result:
    return Result(attempt=1, outcome=Outcome.FAILED, reason=reason, message=message)


def seen(*pods: Pod, warnings: dict[str, str] | None = None) -> Observed:
    there = tuple(
        Child("Pod", p.name, p.uid, UID, None, p.plan, deleting=p.due is not None)
        for p in pods
        if not p.gone
    )
    return Observed(children=there, checks=pods, warnings=warnings or {})


def decided(
    of: FineTuneJob,
    observed: Observed,
    known: RewardCheckStatus | None,
    seconds: float = 30,
    settings: Settings = SETTINGS,
) -> Decision:
    status = FineTuneJobStatus(reward_check=known)
    return decide(of.model_copy(update={"status": status}), observed, at(seconds), settings)


def told(decision: Decision) -> tuple[Course, Reason]:
    return decision.verdict.course, decision.verdict.reason


def deleted(decision: Decision) -> list[str]:
    return [child.name for child in decision.delete]


def test_code_is_tried_before_the_first_attempt() -> None:
    of = grpo()
    decision = decided(of, seen(), None, 0)
    assert decision.attempts == ()
    assert decision.run is None
    assert decision.run_check is not None
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
    assert decision.run_check is not None
    document = decision.run_check.pod["metadata"]["annotations"]["finetune.dev/rewards"]
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


def test_rows_of_every_file_are_read() -> None:
    files = [{"uri": "s3://d/a.jsonl"}, {"uri": "s3://d/b.jsonl"}]
    wanted = reward_check(grpo(data={"train": files}), "trainer:1")
    assert wanted is not None
    (rows,) = wanted.pod["spec"]["initContainers"]
    assert rows["command"][-4:] == ["--uri", "s3://d/a.jsonl", "--uri", "s3://d/b.jsonl"]


def test_code_that_scores_lets_the_attempt_start_in_the_same_pass() -> None:
    of = grpo()
    decision = decided(of, seen(ended(of, GOOD)), record(of))
    assert [a.number for a in decision.attempts] == [1]
    assert decision.reward_check is not None
    assert decision.reward_check.state is RewardCheckState.PASSED
    assert decision.reward_check.message == "16 scores"
    assert deleted(decision) == [], "its log can be read"


def test_a_good_word_with_a_bad_exit_code_is_none() -> None:
    """Text that the user's code prints can end up where a Result is looked for."""
    of = grpo()
    decision = decided(of, seen(ended(of, GOOD, code=1)), record(of))
    assert decision.attempts == ()


def test_a_good_word_that_the_pod_takes_with_it_counts() -> None:
    of = grpo()
    assert decided(of, seen(ended(of, GOOD, gone=True)), record(of)).run is not None


def test_a_check_that_passed_is_not_repeated() -> None:
    of = grpo()
    passed = record(of, state="Passed")
    assert decided(of, seen(), passed).run is not None
    other = grpo({**PYTHON, "python": {**PYTHON["python"], "function": "other"}})
    assert decided(other, seen(), passed).run is None, "what passed was another function"


@pytest.mark.parametrize("reason", [Reason.REWARD_INVALID, Reason.DATA_NOT_FOUND])
def test_what_only_the_user_can_mend_ends_the_job(reason: Reason) -> None:
    of = grpo()
    decision = decided(of, seen(ended(of, failure(reason), 30)), record(of))
    assert told(decision) == (Course.FAILED, reason)
    assert "bot-rewards: told" in decision.verdict.message
    assert decision.reward_check is not None
    assert decision.reward_check.state is RewardCheckState.FAILED
    assert decision.attempts == ()


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"result": None, "code": 137}, 3),
        ({"result": failure(Reason.TRAINER_ERROR), "code": 1}, 2),
    ],
    ids=["lost", "error"],
)
def test_other_ends_are_tried_again_so_many_times(changes: dict[str, Any], allowed: int) -> None:
    of = grpo(runPolicy={"maxAttempts": 2})
    known = record(of)
    for failures in range(1, allowed):
        decision = decided(of, seen(ended(of, **changes)), known)
        assert told(decision) == (Course.PROGRESSING, Reason.RETRYING)
        counted = decision.reward_check
        assert counted is not None
        assert (counted.failures, counted.end_time) == (failures, stamp(30))
        assert decision.after == timedelta(seconds=10 * 2 ** (failures - 1))
        known = record(of, failures=failures)
    last = decided(of, seen(ended(of, **changes)), known)
    assert last.verdict.course is Course.FAILED
    assert f"it was try {allowed}" in last.verdict.message


def test_a_pod_that_was_counted_goes_and_the_next_is_made_after_a_pause() -> None:
    of = grpo()
    counted = record(of, failures=1, end_time=stamp(30))
    old = ended(of, None, 1)
    going = decided(of, seen(old), counted, 60)
    assert deleted(going) == ["bot-rewards"]
    assert going.run_check is None
    assert going.reward_check == counted
    stuck = decided(of, seen(replace(old, due=at(31))), counted, 60)
    assert (deleted(stuck), stuck.run_check) == (["bot-rewards"], None), "a lost node keeps it"
    assert decided(of, seen(replace(old, gone=True)), counted, 39).run_check is None
    after = decided(of, seen(replace(old, gone=True)), counted, 40)
    assert after.run_check is not None
    assert after.reward_check == record(of, failures=1, pod_uid=None)


def test_a_pod_that_vanished_is_counted_once_the_server_says_so_too() -> None:
    of = grpo()
    decision = decided(of, seen(), record(of))
    assert decision.confirm
    assert decision.reward_check is not None
    assert decision.reward_check.failures == 1
    deleted_one = decided(of, seen(pod(of, gone=True)), record(of))
    assert deleted_one.reward_check is not None
    assert deleted_one.reward_check.message == "bot-rewards was deleted"


def test_a_pod_of_another_spec_goes_first() -> None:
    of = grpo()
    decision = decided(of, seen(pod(of, plan="older")), record(of, plan="older"))
    assert deleted(decision) == ["bot-rewards"]
    assert decision.run_check is None
    assert decision.reward_check is not None
    assert decision.reward_check.plan == plan(of)


def test_a_suspended_job_waits_without_its_pod_and_begins_the_check_anew() -> None:
    of = grpo(runPolicy={"suspend": True})
    decision = decided(of, seen(pod(of)), record(of))
    assert told(decision) == (Course.SUSPENDED, Reason.SUSPENDED)
    assert deleted(decision) == ["bot-rewards"]
    paused = decision.reward_check
    assert paused == record(of, pod_uid=None, start_time=None)
    going = decided(grpo(), seen(pod(of, due=at(40))), paused)
    assert (deleted(going), going.run_check) == (["bot-rewards"], None)
    assert going.reward_check == paused, "a pod that was told to go is not counted"
    passed = record(of, state="Passed")
    assert decided(of, seen(ended(of, GOOD)), passed).reward_check == passed


def test_the_deadline_counts_the_check() -> None:
    of = grpo(runPolicy={"activeDeadlineSeconds": 30})
    waits = decided(of, seen(pod(of)), record(of), 29)
    assert waits.after == timedelta(seconds=1)
    late = decided(of, seen(pod(of)), record(of), 30)
    assert told(late) == (Course.FAILED, Reason.DEADLINE_EXCEEDED)
    assert deleted(late) == ["bot-rewards"]


def test_what_blocks_the_pod_is_told_and_not_for_ever() -> None:
    of = grpo()
    warning = 'MountVolume.SetUp failed for volume "x" : configmap "code" not found'
    waiting = pod(of, phase="Pending", running=False)
    observed = seen(waiting, warnings={"check": warning})
    decision = decided(of, observed, record(of))
    assert told(decision) == (Course.PROGRESSING, Reason.VOLUME_UNAVAILABLE)
    field = "spec.method.grpo.rewards[mine].python.configMap"
    assert f'ConfigMap "code", named by {field}, does not exist' in decision.verdict.message
    late = decided(of, observed, record(of), 61)
    assert told(late) == (Course.FAILED, Reason.START_TIMEOUT)
    assert deleted(late) == ["bot-rewards"]
    image = pod(of, phase="Pending", running=False, obstacle=Obstacle("ErrImagePull", "no image"))
    assert told(decided(of, seen(image), record(of)))[1] is Reason.IMAGE_UNAVAILABLE


def test_the_events_of_a_pod_that_does_not_start_are_read() -> None:
    of = grpo()
    waiting = pod(of, phase="Pending", running=False)
    assert decided(of, seen(waiting), record(of), 2).look == ()
    assert decided(of, seen(waiting), record(of), 4).look == ("check",)
    assert decided(of, seen(pod(of)), record(of)).look == ()


def test_a_pod_that_runs_is_waited_for() -> None:
    of = grpo()
    decision = decided(of, seen(pod(of)), record(of, pod_uid=None))
    assert told(decision) == (Course.PROGRESSING, Reason.PENDING)
    assert decision.reward_check == record(of)
    assert decision.after == timedelta(seconds=3571), "nothing else is awaited"
    assert (deleted(decision), decision.run_check) == ([], None)


def test_a_pod_that_its_node_does_not_let_go_is_counted_and_looked_at_until_then() -> None:
    of = grpo()
    going = decided(of, seen(pod(of, due=at(20))), record(of), 49)
    assert told(going) == (Course.PROGRESSING, Reason.PENDING)
    assert going.after == timedelta(seconds=10), "nothing tells that a node is lost"
    lost = decided(of, seen(pod(of, due=at(20))), record(of), 50)
    assert told(lost) == (Course.PROGRESSING, Reason.RETRYING)
    assert lost.reward_check is not None
    assert lost.reward_check.message == "bot-rewards was deleted, but its node does not confirm it"


@pytest.mark.parametrize("running", [True, False])
def test_a_pod_that_hangs_is_given_an_hour(running: bool) -> None:
    of = grpo()
    obstacle = None if running else Obstacle("CreateContainerError", "no such device")
    hangs = pod(of, scheduled=at(5), running=running, obstacle=obstacle)
    known = record(of)
    waits = decided(of, seen(hangs), known, 3604)
    assert waits.after == timedelta(seconds=1)
    assert waits.reward_check == known
    over = decided(of, seen(hangs), known, 3605)
    assert told(over) == (Course.PROGRESSING, Reason.RETRYING)
    assert over.reward_check is not None
    message = "bot-rewards did not end within 3600 seconds"
    message += "" if running else ": CreateContainerError: no such device"
    assert (over.reward_check.failures, over.reward_check.message) == (1, message)
    goes = decided(of, seen(hangs), over.reward_check, 3606)
    assert deleted(goes) == ["bot-rewards"]
    once = grpo(runPolicy={"maxAttempts": 1})
    last = decided(once, seen(pod(once, scheduled=at(5))), record(once), 3605)
    assert told(last) == (Course.FAILED, Reason.TRAINER_ERROR)
    assert deleted(last) == ["bot-rewards"]


def test_a_pod_of_a_deleted_job_that_a_lost_node_keeps_is_no_obstacle() -> None:
    of = grpo()
    old = Child("Pod", "bot-rewards", "old", "old-job", None, "p", deleting=True)
    stranger = replace(old, name="x", owner_uid=None)
    ours = Child("ServiceAccount", "bot-finetune", "a", UID, None, "p", deleting=True)
    decision = decided(of, Observed(children=(old, ours, replace(stranger, kind="Lease"))), None, 0)
    assert decision.delete == (old,)
    assert decision.run_check is not None


def test_objects_that_the_cluster_refuses_end_the_job() -> None:
    of = grpo()
    decision = refused(decided(of, seen(), None, 0), 'pods "bot-rewards" is forbidden: quota', NOW)
    assert told(decision) == (Course.FAILED, Reason.BACKEND_REFUSED)
    assert decision.reward_check is not None
    assert decision.reward_check.state is RewardCheckState.FAILED


def test_a_check_that_nobody_waits_for_any_more_gives_its_place_back() -> None:
    of = grpo({"name": "h", "http": {"url": "http://j"}})
    left_over = pod(grpo())
    assert deleted(decided(of, seen(left_over), None)) == ["bot-rewards"]


def test_a_finished_job_leaves_no_pod_waiting() -> None:
    of = grpo()
    failed = decided(of, seen(), record(of, pod_uid=None), 0)
    over = refused(failed, "quota", NOW)
    status = status_of(of, seen(), over, NOW, SETTINGS)
    late = decide(of.model_copy(update={"status": status}), seen(pod(of)), at(5), SETTINGS)
    assert deleted(late) == ["bot-rewards"]
    told_all = decide(
        of.model_copy(update={"status": status}), seen(ended(of, GOOD)), at(5), SETTINGS
    )
    assert deleted(told_all) == [], "its log can be read"


def test_the_deadline_counts_the_check_up_to_its_end() -> None:
    of = grpo(runPolicy={"activeDeadlineSeconds": 100})
    passed = record(of, state="Passed", end_time=stamp(20))
    started = decided(of, seen(), passed, 1000)
    assert started.run is not None
    going = of.model_copy(
        update={
            "status": FineTuneJobStatus(reward_check=passed, attempts=[started.run.model_copy()])
        }
    )
    assert told(decide(going, seen(), at(1079), SETTINGS)) == (Course.PROGRESSING, Reason.PENDING)
    late = decide(going, seen(), at(1080), SETTINGS)
    assert late.attempts[0].reason == Reason.DEADLINE_EXCEEDED


def test_rows_are_read_with_the_jobs_volumes_and_code_without() -> None:
    volume = {"name": "d", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "rows"}}
    wanted = reward_check(grpo(workers={"volumes": [volume]}), "trainer:1")
    assert wanted is not None
    spec = wanted.pod["spec"]
    mounts = {
        c["name"]: [m["mountPath"] for m in c["volumeMounts"]]
        for c in (*spec["initContainers"], *spec["containers"])
    }
    assert "/data" in mounts["rows"]
    assert "/data" not in mounts["rewards"]


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


STAGES: dict[str, tuple[list[Pod], dict[str, Any] | None]] = {
    "none yet": ([], None),
    "under way": ([pod(grpo())], {}),
    "lost": ([ended(grpo(), None, 1)], {}),
    "counted": ([ended(grpo(), None, 1)], {"failures": 1, "end_time": stamp(30)}),
    "pausing": ([], {"failures": 1, "end_time": stamp(30)}),
    "refused": ([ended(grpo(), failure(Reason.REWARD_INVALID), 30)], {}),
    "passed": ([ended(grpo(), GOOD)], {}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_deleted_job_left_goes_at_every_stage(stage: str) -> None:
    pods, fields = STAGES[stage]
    stray = Child("Lease", "bot-a7", "stray", "old-job", 7, "p", deleting=False)
    observed = seen(*pods)
    observed = replace(observed, children=(*observed.children, stray))
    known = None if fields is None else record(grpo(), **fields)
    assert stray in decided(grpo(), observed, known).delete

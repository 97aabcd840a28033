"""A run that is killed, evicted or suspended goes on as if nothing had happened.

Every job here does the same training; equal means equal to the last bit of the adapter's file.
"""

import random
import signal

import pytest

from support.cluster.journey import Journey, check_killed, condition, resumable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(journey: Journey) -> str:
    """The sha256 of the adapter of a run that nothing happened to."""
    journey.apply(resumable("calm"))
    assert [a["state"] for a in journey.wait_for_success("calm")["status"]["attempts"]] == [
        "Succeeded"
    ]
    return journey.adapter_digest("calm")


@pytest.mark.parametrize("seed", range(1, 10))
def test_a_pod_killed_at_a_random_second(journey: Journey, uninterrupted: str, seed: int) -> None:
    check_killed(journey, f"killed-{seed}", random.Random(seed), uninterrupted)


def test_suspend_saves_frees_the_pods_and_goes_on(journey: Journey, uninterrupted: str) -> None:
    journey.apply(resumable("paused", every=1_000_000))
    journey.wait_for_training("paused")
    journey.suspend("paused", True)
    journey.wait_for_reason("paused", "Suspended")
    journey.wait("pods to go", lambda: not journey.items("pods", "finetune.dev/job=paused"))
    paused = journey.get("ftj", "paused")
    assert condition(paused, "Suspended")["status"] == "True"
    saved = paused["status"]["checkpoint"]["step"]
    assert saved > 0
    (attempt,) = paused["status"]["attempts"]
    assert (attempt["lastStep"], attempt["lostSteps"]) == (saved, 0)
    journey.suspend("paused", False)
    status = journey.check_went_on("paused", uninterrupted)
    assert [a["state"] for a in status["attempts"]] == ["Suspended", "Succeeded"]
    assert status["attempts"][1]["resumedStep"] == saved


def test_an_evicted_pod_saves_in_its_grace_period(journey: Journey, uninterrupted: str) -> None:
    journey.apply(resumable("evicted", every=1_000_000))
    journey.wait_for_training("evicted")
    journey.kubectl("delete", "pod", "evicted-a1-worker-0", "--wait=false")
    status = journey.check_went_on("evicted", uninterrupted)
    assert status["attempts"][0]["reason"] in ("Interrupted", "Evicted", "PodLost")
    assert status["attempts"][0]["lostSteps"] == 0


def test_steps_are_counted_as_lost_where_the_grace_period_is_too_short(
    journey: Journey, uninterrupted: str
) -> None:
    grace = {"terminationGracePeriodSeconds": 10}
    journey.apply(resumable("hasty", every=50, runPolicy=grace))
    journey.wait_for_training("hasty", step=55)
    journey.signal_pod("hasty-a1-master-0", signal.SIGSTOP)
    journey.kubectl("delete", "pod", "hasty-a1-master-0", "--wait=false")
    status = journey.check_went_on("hasty", uninterrupted)
    first, last = status["attempts"][0], status["attempts"][-1]
    assert first["lostSteps"] == first["lastStep"] - last["resumedStep"]
    assert first["lostSteps"] > 0
    assert last["resumedStep"] % 50 == 0, "the last checkpoint stands"

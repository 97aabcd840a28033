"""What is kept up of an attempt that has begun."""

import pytest

from finetune_contract.reasons import Reason
from finetune_operator.apply import Applier
from finetune_operator.job.parse import Parser
from finetune_operator.judge.decision import Course, Decision, Verdict
from finetune_operator.plan.attempt import attempt_objects, upkeep
from finetune_operator.plan.objects import Objects
from support.operator.backends import ONE_OBJECT, TWO_OBJECTS, Played
from support.operator.passes import Bench, Json
from support.operator.values import attempt, job


async def begun() -> Bench:
    """Return an attempt whose workload is recorded."""
    bench = Bench()
    for _ in range(2):
        await bench.do_pass()
    assert bench.status()["attempts"][0]["workloadUid"]
    bench.created.clear()
    return bench


@pytest.mark.parametrize("kind", ["ConfigMap", "Role", "RoleBinding", "Lease"])
async def test_what_the_pods_of_an_attempt_need_is_made_again(kind: str) -> None:
    bench = await begun()
    del bench.world.objects[kind, "bot-a1"]
    assert await bench.do_pass() == 0
    assert bench.created == [kind]
    assert (kind, "bot-a1") in bench.world.objects


NOT_OWN = "exists and is not this job's: it belongs to nobody"


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("ConfigMap", {"ownerReferences": []}, NOT_OWN),
        ("ConfigMap", {"deletionTimestamp": "now"}, "is being deleted"),
        ("PyTorchJob", {"ownerReferences": []}, NOT_OWN),
    ],
)
async def test_what_the_pods_were_given_has_to_be_the_jobs_own(
    kind: str, change: Json, said: str
) -> None:
    bench = await begun()
    body = bench.world.objects[kind, "bot-a1"]
    bench.world.store({**body, "metadata": {**body["metadata"], **change}})
    await bench.do_pass()
    assert f"{kind} bot-a1 {said}" in bench.told("Reconciling")[2]


async def test_what_goes_while_the_rest_is_looked_at_is_looked_for_at_once() -> None:
    bench = await begun()
    job = Parser().parse(bench.world.job())
    decision = Decision((), Verdict(Course.KEPT, Reason.RUNNING))
    given = Objects((), (), (), (("ConfigMap", "bot-a1"), ("PyTorchJob", "bot-a1")))
    applier = Applier(bench.api, bench.cache)
    assert not await applier.apply(job, decision, given)
    bench.cache.bury(bench.world.objects["ConfigMap", "bot-a1"])
    assert await applier.apply(job, decision, given)
    assert bench.created == []


@pytest.mark.parametrize("backend", [ONE_OBJECT, TWO_OBJECTS])
def test_all_that_may_be_changed_under_pods_is_kept_up(backend: Played) -> None:
    whole = attempt_objects(job(), attempt(), backend, 15.0, ["registry"])
    kept = upkeep(job(), 1, backend, ["registry"])
    said = [*kept.prepared, *kept.bound, *kept.started]
    rest = [one for one in [*whole.prepared, *whole.bound, *whole.started] if one not in said]
    assert len(said) + len(rest) == len([*whole.prepared, *whole.bound, *whole.started])
    assert {(one["kind"], one["metadata"]["name"]) for one in rest} == set(kept.given)
    assert kept.bound == whole.bound

"""What is kept of an object is what is read of it, however much others put into it."""

import copy
import json

import pytest

from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.job.kept import kept
from finetune_operator.observe.observe import observe
from finetune_operator.plan.backends import BACKEND
from support.operator.passes import KEY, Bench, Json
from support.operator.values import job

MUCH = "x" * 100_000
ENDED = {"state": {"terminated": {"exitCode": 3}}}


def pod(**metadata: Json) -> Json:
    given = {"name": "bot-rewards", "namespace": "team", "uid": "u", "resourceVersion": "1"}
    owner = {"kind": "FineTuneJob", "name": "bot", "uid": "job-uid", "controller": True}
    first = [{"name": "mesh", "restartPolicy": "Always", "args": [MUCH]}, {"name": "rows"}]
    return {
        "kind": "Pod",
        "metadata": {**given, "ownerReferences": [owner], **metadata},
        "spec": {"initContainers": first, "containers": [{"name": "rewards", "args": [MUCH]}]},
        "status": {
            "phase": "Failed",
            "initContainerStatuses": [{"name": "mesh", **ENDED}, {"name": "rows", **ENDED}],
        },
    }


def test_a_pod_says_the_same_as_it_is_kept() -> None:
    annotations = {"finetune.dev/plan": "p", "other": MUCH}
    body = pod(annotations=annotations, managedFields=[MUCH])
    assert len(json.dumps(kept(body))) < 1000
    seen = [observe(job(), [b], [], BACKEND) for b in (body, kept(body))]
    assert seen[0] == seen[1]
    assert (seen[0].checks[0].digest, seen[0].checks[0].init_failure.name) == ("p", "rows")
    assert body == pod(annotations=annotations, managedFields=[MUCH]), "it is another's"


def test_a_pod_that_was_placed_by_name_waits_for_no_scheduler_as_it_is_kept() -> None:
    placed = {**pod(), "spec": {"nodeName": "node-7"}, "status": {"phase": "Pending"}}
    placed["metadata"]["creationTimestamp"] = "2026-03-01T12:00:00Z"
    obstacles = [
        observe(job(), [kept({**placed, "spec": spec})], [], BACKEND).checks[0].obstacle
        for spec in (placed["spec"], {})
    ]
    assert obstacles[0] is None
    assert obstacles[1] is not None


def test_a_job_is_kept_whole_whatever_a_newer_crd_calls_a_template() -> None:
    spec = {"data": {"chat": {"template": "a"}}}
    metadata = {"name": "bot", "managedFields": [MUCH]}
    made = kept({"kind": "FineTuneJob", "metadata": metadata, "spec": spec})
    assert made == {"kind": "FineTuneJob", "metadata": {"name": "bot"}, "spec": spec}


def test_the_cache_keeps_no_more() -> None:
    cache = Cache()
    cache.put(pod())
    assert len(json.dumps(cache.children(Key("team", "bot")))) < 1000
    cache.remove({**pod(), "metadata": {**pod()["metadata"], "resourceVersion": "2"}})
    assert len(json.dumps(cache.departed(Key("team", "bot")))) < 1000


@pytest.mark.parametrize("more", [{"data": {"a": MUCH}}, {"binaryData": {"b": MUCH}}, {"data": {}}])
def test_a_config_map_is_kept_by_its_digest(more: Json) -> None:
    body = {"kind": "ConfigMap", "metadata": {"name": "bot-a1"}, "data": {"a": "b"}}
    assert len(json.dumps(kept({**body, **more}))) < 200
    assert kept({**body, **more})["contents"] != kept(body)["contents"]
    assert kept(kept(body)) == kept(body)


async def test_of_a_workload_its_templates_are_kept_by_their_digest() -> None:
    bench = Bench(workers={"replicas": 2})
    await bench.do_pass()
    body = bench.world.objects["PyTorchJob", "bot-a1"]
    body = {**body, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}
    short = kept(body)
    assert len(json.dumps(short)) < 1500 < len(json.dumps(body))
    assert (BACKEND.held(short), BACKEND.outcome(short)) == (None, False)
    assert kept(short) == short
    other = copy.deepcopy(body)
    other["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["hostNetwork"] = True
    assert kept(other)["spec"] != short["spec"]


async def test_what_was_made_of_a_config_map_is_known_by_its_digest() -> None:
    bench = Bench()
    await bench.do_pass()
    assert "data" not in (bench.cache.find(KEY, "ConfigMap", "bot-a1") or {})
    assert bench.created.count("ConfigMap") == 1

"""What the stand-in makes of a PyTorchJob, and how it judges it: v1.9.4's rules and quirks."""

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kube_emulator.client import Object
from kube_emulator.training_operator import ports
from kube_emulator.training_operator import status as judging
from kube_emulator.training_operator.pods import InitWait, pod, replicas, service

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
WAIT = InitWait(tries=5, seconds=0.2)
LABELS = {
    "training.kubeflow.org/operator-name": "pytorchjob-controller",
    "training.kubeflow.org/job-name": "j",
}


def job(workers: int = 1, policy: str = "Never", **more: Any) -> Object:
    template = {
        "metadata": {"labels": {"own": "label"}, "annotations": {"note": "n"}},
        "spec": {
            "containers": [
                {"name": "pytorch", "image": "i", "env": [{"name": "RANK", "value": "mine"}]},
                {"name": "other", "image": "i"},
            ],
            "initContainers": [{"name": "own", "image": "i"}],
        },
    }
    replica = {"replicas": 1, "restartPolicy": policy, "template": template}
    specs = {"Master": replica} | ({"Worker": replica | {"replicas": workers}} if workers else {})
    spec = {"pytorchReplicaSpecs": specs, "runPolicy": more.pop("runPolicy", {}), **more}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "j", "namespace": "ns", "uid": "u"},
        "spec": spec,
    }


def made(one: Object) -> list[Object]:
    return [pod(one, replica, 20000, WAIT) for replica in replicas(one)]


def environment(container: Object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in container["env"]:
        found.setdefault(entry["name"], []).append(entry["value"])
    return found


def test_names_owner_and_labels() -> None:
    pods = made(job(workers=2))
    assert [one["metadata"]["name"] for one in pods] == ["j-master-0", "j-worker-0", "j-worker-1"]
    meta = pods[2]["metadata"]
    replica = {
        "training.kubeflow.org/replica-type": "worker",
        "training.kubeflow.org/replica-index": "1",
    }
    assert meta["labels"] == {"own": "label"} | LABELS | replica
    assert meta["annotations"] == {"note": "n"}
    [owner] = meta["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "PyTorchJob",
        "j",
        "u",
        True,
    )
    assert pods[0]["metadata"]["labels"]["training.kubeflow.org/job-role"] == "master"


def test_its_variables_come_after_the_templates_in_every_container() -> None:
    master, worker = made(job(nprocPerNode="2"))
    for container in worker["spec"]["containers"]:
        values = {name: given[-1] for name, given in environment(container).items()}
        assert values == {
            "PYTHONUNBUFFERED": "1",
            "MASTER_ADDR": "j-master-0",
            "MASTER_PORT": "20000",
            "PET_MASTER_ADDR": "j-master-0",
            "PET_MASTER_PORT": "20000",
            "WORLD_SIZE": "4",
            "RANK": "1",
            "PET_NODE_RANK": "1",
            "PET_NPROC_PER_NODE": "2",
            "PET_NNODES": "2",
        }
    assert environment(master["spec"]["containers"][0])["RANK"] == ["mine", "0"]


@pytest.mark.parametrize(("given", "world"), [("auto", "2"), ("gpu", "2"), ("3", "6")])
def test_world_size_is_the_replicas_unless_processes_are_counted(given: str, world: str) -> None:
    master = made(job(nprocPerNode=given))[0]
    values = environment(master["spec"]["containers"][0])
    assert values["WORLD_SIZE"] == [world]
    assert values["PET_NPROC_PER_NODE"] == [given]


def test_workers_wait_for_the_master_after_the_templates_init_containers() -> None:
    master, worker = made(job())
    assert [one["name"] for one in master["spec"]["initContainers"]] == ["own"]
    assert [one["name"] for one in worker["spec"]["initContainers"]] == ["own", "init-pytorch"]
    wait = worker["spec"]["initContainers"][1]
    assert wait["image"] == "alpine:3.10"
    assert "j-master-0" in wait["command"][2]
    assert "seq 5" in wait["command"][2]
    assert "env" not in wait


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("Never", "Never"), ("OnFailure", "OnFailure"), ("Always", "Always"), ("ExitCode", "Never")],
)
def test_restart_policy(policy: str, expected: str) -> None:
    assert {one["spec"]["restartPolicy"] for one in made(job(policy=policy))} == {expected}


def test_the_template_is_not_changed() -> None:
    one = job()
    made(one)
    assert one == job()


def test_services_select_one_replica() -> None:
    one = job()
    worker = list(replicas(one))[1]
    made_service = service(one, worker, 20000)
    assert made_service["metadata"]["name"] == "j-worker-0"
    assert made_service["spec"]["clusterIP"] == "None"
    pod_labels = pod(one, worker, 20000, WAIT)["metadata"]["labels"]
    assert made_service["spec"]["selector"].items() <= pod_labels.items()
    assert made_service["spec"]["ports"][0]["port"] == 20000


# --- status


def running(one: Object, **phases: str) -> list[Object]:
    """The job's pods with given phases, as running(job(), master="Running")."""
    pods = made(one)
    for each in pods:
        kind = each["metadata"]["labels"]["training.kubeflow.org/replica-type"]
        each["status"] = {"phase": phases.get(kind, "Pending")}
    return pods


def judged(one: Object, now: datetime = NOW, **phases: str) -> Object:
    status = judging.begun(one, now)
    judging.resume(one, status, now)
    judging.judge(one, status, running(one, **phases), now)
    return status


def conditions(status: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status["conditions"]}


def test_running_means_the_master_runs() -> None:
    assert conditions(judged(job(), worker="Running")) == {"Created": "True"}
    status = judged(job(), master="Running")
    assert conditions(status) == {"Created": "True", "Running": "True"}
    assert status["startTime"] == "2026-01-01T12:00:00Z"
    assert status["replicaStatuses"]["Master"]["active"] == 1
    assert "active" not in status["replicaStatuses"]["Worker"]


def test_success_is_the_masters() -> None:
    status = judged(job(), master="Succeeded", worker="Running")
    assert conditions(status) == {"Created": "True", "Succeeded": "True"}
    assert status["completionTime"] == "2026-01-01T12:00:00Z"


def test_the_workers_success_decides_nothing() -> None:
    assert conditions(judged(job(), master="Running", worker="Succeeded")) == {
        "Created": "True",
        "Running": "True",
    }


@pytest.mark.parametrize("kind", ["master", "worker"])
def test_never_fails_the_job_with_any_replica(kind: str) -> None:
    status = judged(job() | {"status": judged(job(), master="Running")}, LATER, **{kind: "Failed"})
    assert conditions(status) == {"Created": "True", "Running": "False", "Failed": "True"}
    assert status["completionTime"] == "2026-01-01T12:01:00Z"
    [failed] = [one for one in status["conditions"] if one["type"] == "Failed"]
    words = f"PyTorchJob j is failed because 1 {kind.title()} replica(s) failed."
    assert (failed["reason"], failed["message"]) == ("PyTorchJobFailed", words)


def test_other_policies_restart() -> None:
    one = job(policy="OnFailure")
    first = judged(one, master="Running")
    status = judged(one | {"status": first}, LATER, master="Failed")
    assert conditions(status) == {"Created": "True", "Restarting": "True"}
    again = judged(one | {"status": status}, LATER, master="Running")
    assert conditions(again) == {"Created": "True", "Running": "True"}


def test_failed_is_sticky() -> None:
    failed = judged(job(), master="Failed")
    again = judged(job() | {"status": failed}, LATER, master="Succeeded", worker="Succeeded")
    assert again["conditions"] == failed["conditions"]


@pytest.mark.parametrize("kind", ["master", "worker"])
def test_a_running_pod_that_is_being_deleted_has_failed(kind: str) -> None:
    one = job()
    status = judged(one, master="Running", worker="Running")
    pods = running(one, master="Running", worker="Running")
    pods[kind == "worker"]["metadata"]["deletionTimestamp"] = "2026-01-01T12:02:00Z"
    judging.judge(one, status, pods, LATER)
    assert conditions(status) == {"Created": "True", "Running": "False", "Failed": "True"}
    assert status["replicaStatuses"][kind.title()]["failed"] == 1
    assert "active" not in status["replicaStatuses"][kind.title()]


@pytest.mark.parametrize("phase", ["Pending", "Succeeded"])
def test_any_other_pod_that_is_being_deleted_counts_as_what_it_is(phase: str) -> None:
    pods = running(job(), worker=phase)
    pods[1]["metadata"]["deletionTimestamp"] = "2026-01-01T12:02:00Z"
    assert judging.count(pods) == {"active": 0, "failed": 0, "succeeded": phase == "Succeeded"}


def test_a_worker_that_fails_after_the_masters_success_is_not_looked_at() -> None:
    status = judged(job(), master="Succeeded", worker="Failed")
    assert conditions(status) == {"Created": "True", "Succeeded": "True"}


def test_suspend_and_resume() -> None:
    one = job()
    status = judged(one, master="Running")
    judging.suspend(one, status, LATER)
    assert conditions(status) == {"Created": "True", "Running": "False", "Suspended": "True"}
    assert "startTime" not in status
    assert status["replicaStatuses"] == {"Master": {}, "Worker": {}}
    judging.resume(one, status, LATER)
    assert conditions(status)["Suspended"] == "False"
    assert status["startTime"] == "2026-01-01T12:01:00Z"


def test_the_deadline_counts_from_the_start() -> None:
    one = job(runPolicy={"activeDeadlineSeconds": 60})
    status = judged(one, master="Running")
    assert not judging.past_deadline(one, status, NOW + timedelta(seconds=59))
    assert judging.past_deadline(one, status, NOW + timedelta(seconds=60))
    assert not judging.past_deadline(job(), status, LATER)
    assert not judging.past_deadline(one, {}, LATER)


def test_time_to_live_counts_from_the_end() -> None:
    one = job(runPolicy={"ttlSecondsAfterFinished": 30})
    assert judging.expiry(one) is None
    finished = one | {"status": judged(one, master="Succeeded")}
    assert judging.expiry(finished) == NOW + timedelta(seconds=30)
    assert judging.expiry(finished | {"spec": {}}) is None


def test_a_permanent_exit_code_leaves_no_completion_time() -> None:
    """v1.9.4's bug: such a job's TTL never comes."""
    status = judging.begun(job(policy="ExitCode"), NOW)
    judging.fail(job(), status, "m", NOW, ended=False)
    assert conditions(status)["Failed"] == "True"
    assert "completionTime" not in status


def test_replicas_that_outlive_a_success_count_as_succeeded() -> None:
    finished = job() | {"status": judged(job(), master="Succeeded", worker="Running")}
    workers = judging.settled(finished)["replicaStatuses"]["Worker"]
    assert workers["succeeded"] == 1
    assert "active" not in workers
    failed = job() | {"status": judged(job(), master="Failed", worker="Running")}
    assert judging.settled(failed) == failed["status"]


def test_the_exit_code_is_that_of_the_container_pytorch() -> None:
    ended = [
        {"name": "other", "state": {"terminated": {"exitCode": 1}}},
        {"name": "pytorch", "state": {"terminated": {"exitCode": 137}}},
    ]
    assert judging.exit_code({"status": {"containerStatuses": ended}}) == 137
    assert judging.exit_code({"status": {}}) == 0


@pytest.mark.parametrize(
    ("manager", "managed"),
    [(None, True), ("kubeflow.org/training-operator", True), ("kueue.x-k8s.io/multikueue", False)],
)
def test_managed_by_another_controller(manager: str | None, managed: bool) -> None:
    policy = {"managedBy": manager} if manager else {}
    assert judging.is_ours(job(runPolicy=policy)) is managed


def test_a_rendezvous_port_is_no_other_jobs_before_torch_listens() -> None:
    with ports.held_port() as holder:
        port = ports.number_of(holder)
        with pytest.raises(RuntimeError, match="no free port"):
            ports.held_port(range(port, port + 1))
        socket.create_server(("", port)).close()  # with SO_REUSEADDR, as torch's

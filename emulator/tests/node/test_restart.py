"""The node process dies and another takes its place, while the API server lives on."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kube_support import processes
from kube_support.pods import Pods, eventually, pods_of, sh, state, status_of


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    with processes.running(tmp_path) as started:
        yield started.api_server(tmp_path / "api")


@contextmanager
def node(kubeconfig: Path, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A node that dies at the end of the block, if not before."""
    with processes.running(home.parent) as started:
        process = started.component("node", f"--kubeconfig={kubeconfig}", f"--dir={home}")
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def test_pods_of_a_dead_node_are_lost_or_start_again(
    kubeconfig: Path, tmp_path: Path
) -> None:
    home = tmp_path / "node"
    async with pods_of(kubeconfig) as pods:
        with node(kubeconfig, home) as first:
            once = await pods.create("once", sh("exec sleep 600"))
            ever = await pods.create("ever", sh("exec sleep 600"), restartPolicy="Always")
            done = await pods.create("done", sh("echo said"))
            pids = [await running_pid(pods, home, name) for name in (once, ever)]
            await pods.until_phase(done, "Succeeded")
            os.kill(first.pid, signal.SIGKILL)
            await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))

        with node(kubeconfig, home) as second:
            lost = await pods.until_phase(once, "Failed")
            ended = state(lost)["terminated"]
            assert (ended["reason"], ended["exitCode"]) == ("ContainerStatusUnknown", 137)

            again = await pods.until(
                ever, lambda pod: "running" in state(pod) and status_of(pod)["restartCount"] == 1
            )
            assert again["status"]["phase"] == "Running"

            finished = await pods.get(done)
            assert finished["status"]["phase"] == "Succeeded"
            assert await pods.logs(done) == "said\n"

            for name in (once, ever, done):
                await pods.delete(name)
                await pods.until_gone(name)
            await eventually(lambda: not list((home / "pods").iterdir()))
            assert second.poll() is None


async def running_pid(pods: Pods, home: Path, name: str) -> int:
    pod = await pods.until_phase(name, "Running")
    return int((home / f"pods/{pod['metadata']['uid']}/containers/c0/pid").read_text())


async def test_a_deletion_that_came_while_the_node_was_away_is_carried_out(
    kubeconfig: Path, tmp_path: Path
) -> None:
    home = tmp_path / "node"
    async with pods_of(kubeconfig) as pods:
        with node(kubeconfig, home):
            name = await pods.create("orphan", sh("exec sleep 600"))
            await pods.until_phase(name, "Running")
        await pods.delete(name)
        assert "deletionTimestamp" in (await pods.get(name))["metadata"]
        with node(kubeconfig, home):
            await pods.until_gone(name)

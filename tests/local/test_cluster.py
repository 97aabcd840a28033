"""The embedded cluster as a whole: starting, stopping, dying."""

import asyncio
import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import psutil
import pytest
from obstore.exceptions import BaseError

from finetune_local import binaries, cluster, s3
from finetune_local.cluster import ClusterError
from finetune_local.supervisor import Supervisor
from kube_emulator.node.containers.sandbox import SandboxError

SECONDS = 180.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cluster"
    cluster.down(tmp_path / "cluster")


def processes_of(home: Path) -> list[psutil.Process]:
    """Everything that was started for the cluster in `home`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and str(home) in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def until_none(home: Path) -> None:
    end = time.monotonic() + SECONDS
    while left := processes_of(home):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_what_is_up_ends_whatever_happens(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        # what leads out of a company's network does not lead to this machine
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # What a block raises ends what it was to keep.
    with pytest.raises(ZeroDivisionError), cluster.running_cluster(home, keep=True) as info:  # noqa: PT012
        assert cluster.status(home) == info
        assert info.s3.secret_key not in repr(info)
        nodes = kubectl(info, "get", "nodes", "--no-headers")
        assert nodes.startswith("emulated")
        assert "pytorchjobs.kubeflow.org" in kubectl(info, "get", "crd", "--output=name")
        obstore.put(info.s3.store("bucket"), "key", b"value")
        assert bytes(obstore.get(info.s3.store("bucket"), "key").bytes()) == b"value"

        with pytest.raises(ClusterError, match=r"a cluster runs in .* already; stop it with"):
            cluster.up(home)

        kubectl(info, "run", "left", "--image=alpine", "--command", "--", "sleep", "600")
        kubectl(info, "wait", "--for=condition=Ready", "pod/left", "--timeout=180s")
        sockets = s3_sockets(home)
        assert [one for one in sockets if one.exists()]
        raise ZeroDivisionError
    assert not processes_of(home)
    assert cluster.status(home) is None
    assert sorted(one.name for one in home.iterdir()) == ["logs"]
    assert not [one for one in sockets if one.exists()]
    assert cluster.down(home) is False


def s3_sockets(home: Path) -> list[Path]:
    """What SeaweedFS puts into the common /tmp, by its ports."""
    lines = [" ".join(one.cmdline()) for one in processes_of(home)]
    found = re.findall(r"-(\w+)\.port\.grpc=(\d+)", " ".join(lines))
    return [Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock") for name, port in found]


def kubectl(info: cluster.ClusterInfo, *arguments: str) -> str:
    command = [str(binaries.kubectl()), f"--kubeconfig={info.kubeconfig}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_it_is_private(home: Path) -> None:
    """Only the owner may read keys; every port is on loopback; wrong credentials are refused."""
    with cluster.running_cluster(home, keep=True) as info:
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for secret in (info.kubeconfig, home / "s3" / "identities.json", home / "cluster.json"):
            assert stat.S_IMODE(secret.stat().st_mode) & 0o077 == 0, secret
        for process in processes_of(home):
            assert info.s3.secret_key not in " ".join(process.cmdline())
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1", (process.cmdline(), connection)
        wrong = dataclasses.replace(info.s3, secret_key="wrong").store("bucket")
        with pytest.raises(BaseError, match="403"):
            obstore.put(wrong, "key", b"value")
    assert cluster.status(home) == info, "it was to be kept"
    assert cluster.down(home) is True


def test_it_dies_as_one(home: Path) -> None:
    """Killed like by the kernel's OOM killer: pods, S3 and all the others go too."""
    for victim in ("finetune_local.supervisor", "kube_emulator.node"):
        info = cluster.up(home)
        assert not kubectl(info, "get", "pods", "--output=name"), "the last one's are there"
        kubectl(info, "run", "left", "--image=alpine", "--command", "--", "sleep", "601")
        kubectl(info, "wait", "--for=condition=Ready", "pod/left", "--timeout=180s")
        [target] = [
            one
            for one in processes_of(home)
            if victim in one.cmdline() and "setpriv" not in one.name()
        ]
        target.kill()
        until_none(home)
        assert cluster.status(home) is None


async def test_a_store_that_ends_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho no such disk\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(binaries, "weed", lambda: broken)
    (tmp_path / "logs").mkdir()
    with pytest.raises(s3.S3Error, match=r"ended with 3:\nno such disk"):
        await asyncio.wait_for(Supervisor(tmp_path, []).run(), SECONDS)


def test_an_id_that_another_process_has_inherited_is_left_alone(home: Path) -> None:
    home.mkdir()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        stale = {"pid": bystander.pid, "created": psutil.Process(bystander.pid).create_time() - 9}
        (home / "supervisor.json").write_text(json.dumps(stale))
        assert cluster.status(home) is None
        assert cluster.down(home) is False
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_interrupted_start_leaves_nothing(home: Path) -> None:
    # a shell's background jobs ignore SIGINT, and so would the child
    code = f"""
import signal
from pathlib import Path
from finetune_local import cluster
signal.signal(signal.SIGINT, signal.default_int_handler)
cluster.up(Path({str(home)!r}))
print("too late")
"""
    starting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + SECONDS
    while not (home / "logs" / "apiserver.log").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    starting.send_signal(signal.SIGINT)
    output, _ = starting.communicate(timeout=SECONDS)
    assert output == ""
    assert starting.returncode != 0
    until_none(home)


def test_a_machine_without_namespaces_is_told_before_anything_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise SandboxError("not available; enable them: sudo sysctl x=1")

    monkeypatch.setattr(cluster.sandbox, "check", refuse)
    with pytest.raises(ClusterError, match="sudo sysctl x=1"):
        cluster.up(home)
    assert not home.exists()


def test_a_start_that_fails_says_where_to_look(home: Path) -> None:
    with pytest.raises(ClusterError, match="did not start") as failure:
        cluster.up(home, node_options=["--images=/no/such/file"])
    assert "node did not start; see" in str(failure.value)
    until_none(home)

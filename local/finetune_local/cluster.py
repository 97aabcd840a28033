"""The embedded cluster: start it, stop it, ask for it. One cluster per directory.

A cluster is one supervisor process and its children (`supervisor`). It keeps nothing between
`down` and the next `up`: objects, pods, logs and the S3 server's data all go.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from finetune_local import binaries
from finetune_local.paths import state_dir
from finetune_local.private_files import write_json
from finetune_local.s3 import Access
from kube_emulator.node.containers import sandbox

READY_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
CONTENTS = ("apiserver", "node", "s3", "images.json", "cluster.json", "supervisor.json")
LOG_TAIL = 2000


class ClusterError(Exception):
    """The cluster cannot be started or stopped; the message says why and what to do."""


@dataclass(frozen=True)
class ClusterInfo:
    """How to reach a running cluster and its S3."""

    directory: Path
    kubeconfig: Path
    s3: Access


def default_directory() -> Path:
    """Where the cluster lives unless told otherwise: `~/.local/state/finetune/cluster`."""
    return state_dir() / "cluster"


def up(
    directory: Path | None = None,
    *,
    node_options: Sequence[str] = (),
    kubeconfig: Path | None = None,
) -> ClusterInfo:
    """Start a cluster that outlives this process, and return when all of it serves.

    `directory` is its home, made if missing, mode 0700; `node_options` are those of `python -m
    kube_emulator.node`, as "--capacity=cpu=8"; `kubeconfig` is an administrator's, of an API server
    with its controllers that node and S3 join: None starts the emulated ones. Raises ClusterError
    if one runs there already, something it needs is missing, or it did not start.
    """
    home = (directory or default_directory()).expanduser().resolve()
    if _supervisor(home) is not None:
        raise ClusterError(f"a cluster runs in {home} already; stop it with: finetune local down")
    _check_machine()
    _clear(home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    process = _start_supervisor(home, node_options, kubeconfig)
    try:
        return _wait_ready(home, process)
    except BaseException:
        # Ctrl-C included: nothing half-started stays behind
        down(home)
        raise


def down(directory: Path | None = None) -> bool:
    """Stop the cluster and delete what it kept; False if there was none to stop.

    Raises ClusterError if its supervisor does not end.
    """
    home = (directory or default_directory()).expanduser().resolve()
    supervisor = _supervisor(home)
    if supervisor is not None:
        _stop(supervisor)
    _clear(home)
    return supervisor is not None


def status(directory: Path | None = None) -> ClusterInfo | None:
    """The running cluster of a directory; None if none runs there or it is still starting."""
    home = (directory or default_directory()).expanduser().resolve()
    if _supervisor(home) is None or not (home / "cluster.json").exists():
        return None
    return _load(home)


@contextlib.contextmanager
def running_cluster(
    directory: Path | None = None, *, keep: bool = False, kubeconfig: Path | None = None
) -> Iterator[ClusterInfo]:
    """A cluster for the length of a `with`; `keep` leaves it up if the block succeeds.

    Raises ClusterError as `up`.
    """
    info = up(directory, kubeconfig=kubeconfig)
    try:
        yield info
    except BaseException:
        # Ctrl-C included: a kept cluster is one whose block succeeded
        down(info.directory)
        raise
    if not keep:
        down(info.directory)


def _check_machine() -> None:
    """Refuse early, with the remedy, what would fail later in some log."""
    try:
        sandbox.check()
        binaries.weed()
    except (sandbox.SandboxError, binaries.MissingBinaryError) as error:
        raise ClusterError(str(error)) from error


def _start_supervisor(
    home: Path, node_options: Sequence[str], kubeconfig: Path | None
) -> subprocess.Popen[bytes]:
    logs = home / "logs"
    logs.mkdir(exist_ok=True)
    options = [f"--node-option={option}" for option in node_options]
    if kubeconfig is not None:
        options.append(f"--kubeconfig={kubeconfig}")
    with (logs / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune_local.supervisor", f"--dir={home}", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    born = psutil.Process(process.pid).create_time()
    write_json(home / "supervisor.json", {"pid": process.pid, "created": born})
    return process


def _wait_ready(home: Path, process: subprocess.Popen[bytes]) -> ClusterInfo:
    end = time.monotonic() + READY_SECONDS
    while not (home / "cluster.json").exists():
        if process.poll() is not None or time.monotonic() > end:
            log = (home / "logs" / "supervisor.log").read_text(errors="replace")[-LOG_TAIL:]
            raise ClusterError(f"the cluster did not start; logs are in {home / 'logs'}\n{log}")
        time.sleep(POLL_SECONDS)
    return _load(home)


def _load(home: Path) -> ClusterInfo:
    state = json.loads((home / "cluster.json").read_text())
    return ClusterInfo(home, Path(state["kubeconfig"]), Access(**state["s3"]))


def _supervisor(home: Path) -> psutil.Process | None:
    """The live supervisor of a directory; a process that only inherited its id is not it."""
    try:
        known = json.loads((home / "supervisor.json").read_text())
        process = psutil.Process(known["pid"])
        alive = process.create_time() == known["created"]
        return process if alive and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def _stop(supervisor: psutil.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        # its children die with it, whatever kills it
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.send_signal(number)
        try:
            supervisor.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            continue
        return
    raise ClusterError(f"process {supervisor.pid} does not end; look at it with ps")


def _clear(home: Path) -> None:
    """Delete what a cluster keeps; its logs stay until the next one starts."""
    for name in CONTENTS:
        path = home / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

"""Child processes of a test, each with a log, and the emulator's components among them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kube_emulator.component import READY

STOP_SECONDS = 10.0


class Processes:
    """Processes that end with the test, in reverse order; logs go to `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self._running.append(process)
        return process

    def component(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `python -m kube_emulator.MODULE` and return once it says that it serves."""
        command = (sys.executable, "-m", f"kube_emulator.{module}", *arguments)
        process = self.start(module, *command)

        def serves() -> bool:
            text = self._log(module).read_text(errors="replace")
            assert process.poll() is None, text
            return any(line.startswith(READY) for line in text.splitlines())

        until(serves, f"kube_emulator.{module}")
        return process

    def api_server(self, home: Path) -> Path:
        """Start the emulator's API server; returns the administrator's kubeconfig."""
        self.component("apiserver", f"--dir={home}")
        return home / "admin.kubeconfig"

    def stop(self) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


@contextmanager
def running(directory: Path) -> Iterator[Processes]:
    """Processes that end with the block."""
    processes = Processes(directory)
    try:
        yield processes
    finally:
        processes.stop()


def until(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a process to be ready."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not become ready"
        time.sleep(0.1)

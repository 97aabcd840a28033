"""Start a command in a sandbox of its own, and read what it wrote."""

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kube_emulator.node.containers.process import ContainerProcess
from kube_emulator.node.containers.sandbox import Mount, Sandbox, interpreter_mounts

Start = Callable[..., Coroutine[Any, Any, ContainerProcess]]
PATH = os.environ["PATH"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("root", "tmp", "volume"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("from the host")
    return tmp_path


@pytest.fixture
def start(home: Path) -> Start:
    async def start(
        *arguments: str, mounts: tuple[Mount, ...] = (), **more: Any
    ) -> ContainerProcess:
        environment = more.pop("environment", {"PATH": PATH})
        private = Mount(home / "tmp", "/tmp")
        view = [private, *interpreter_mounts(), *mounts]
        sandbox = Sandbox(home / "root", "a-pod", view, **more)
        return await ContainerProcess.start(sandbox, arguments, environment, home / "log")

    return start


def output(home: Path) -> list[str]:
    return [line.split(" ", 3)[3] for line in (home / "log").read_text().splitlines()]

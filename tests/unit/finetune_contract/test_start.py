"""What the images' programs do before they have imported what they need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from finetune_contract.start import have_a_home
from finetune_local.images import REPOSITORY
from kube_emulator.node.containers.sandbox import Mount
from support.containers.rendered import start

IMAGE = f"{REPOSITORY}operator:dev"
PROGRAMS = [
    "finetune_operator",
    "finetune_rewards",
    "finetune_rewards.check",
    "finetune_trainer.launch",
    "finetune_trainer.sample_rows",
]
ENDLESS = """
import time
print("importing", flush=True)
while True:
    try:
        time.sleep(1)
    except BaseException:
        pass
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_who_is_told_to_stop_while_it_imports_stops(program: str, tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text(ENDLESS)
    command = ["python", "-m", program]
    template = {"spec": {"containers": [{"name": "it", "image": IMAGE, "command": command}]}}
    container = start(
        template,
        "it",
        tmp_path / "pod",
        log=subprocess.PIPE,
        mounts=(Mount(tmp_path, "/stub"),),
        environment={"PYTHONPATH": "/stub"},
    )
    with container.process as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"importing\n"
            container.first.terminate()
            assert process.wait(60) == 128 + 15
        finally:
            process.kill()


def test_a_home_is_made_up_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig lies in it. Who has none at all is the operator of tests/kube."""
    monkeypatch.setenv("HOME", "/somebody")
    have_a_home()
    assert os.environ["HOME"] == "/somebody"
    monkeypatch.delenv("HOME")
    have_a_home()
    assert "HOME" not in os.environ, "whoever runs this test stands in /etc/passwd"

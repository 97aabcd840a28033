"""What the images' programs do before they have imported what they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.containers.first_process import as_first_process, first_process

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
    command = as_first_process([sys.executable, "-m", program], tmp_path)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as outer:
        try:
            assert outer.stdout is not None
            assert outer.stdout.readline() == b"importing\n"
            first_process(outer.pid).terminate()
            assert outer.wait(60) == 128 + 15
        finally:
            outer.kill()

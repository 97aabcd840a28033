"""The model of the operator's world is worth what it finds: each bug that is seeded is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import finetune_operator

PACKAGE = Path(finetune_operator.__file__).parent
MUTANTS = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())["mutant"]
NAMES = [mutant["bug"] for mutant in MUTANTS]


def seeded(text: str, mutant: dict[str, str]) -> str:
    """Return a module's text with the bug in it."""
    lines = text.splitlines(keepends=True)
    places = [at for at, line in enumerate(lines) if line.strip() == mutant["line"]]
    assert len(places) == 1, f"{mutant['file']} has the line {len(places)} times"
    (at,) = places
    lines[at] = lines[at].replace(mutant["line"], mutant["becomes"])
    return "".join(lines)


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_mutants_line_still_stands_in_the_operator(mutant: dict[str, str]) -> None:
    changed = seeded((PACKAGE / mutant["file"]).read_text(), mutant)
    compile(changed, mutant["file"], "exec")


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_the_model_finds_the_bug(mutant: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / mutant["file"]
    module.write_text(seeded(module.read_text(), mutant))
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "support.operator.model.search"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["package"]).parent == copy, "it is another package that was tried"
    assert said["wrong"], f"{said['schedules']} schedules do not show it"

"""What an image would install unlocked, or lack, is named; uv itself is played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dockerfile import commands
from images import ROOT, CanNotBeBuilt, demo, entry, pinned, problems, unlocked

PRINTED = """\
Using CPython 3.11.14 interpreter at: /usr/bin/python
Resolved 3 packages in 2.34s
Would download 3 packages
Would install 3 packages
 + aiohttp==3.14.5
 + tensorboardX==2.6.5
 + torch==2.13.0+cu130
"""
CONSTRAINTS = "# made\naiohttp==3.14.5 ; python_full_version < '3.12'\ntensorboardx==2.6.5\n"
# Says that it would install the above; installs the packages of the project at hand, but for one.
UV = f"""
import json, os, shutil, sys, tomllib
from pathlib import Path

here = Path(__file__).parent
files = sorted(str(path) for path in Path().rglob("*") if path.is_file())
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], files, os.environ.get("DS_BUILD_OPS")]) + "\\n")
if (here / "fails").exists():
    sys.exit("no solution found")
if "--dry-run" in sys.argv:
    print('''{PRINTED}''')
    sys.exit()
target = Path(sys.argv[sys.argv.index("--target") + 1])
project = tomllib.loads(Path("pyproject.toml").read_text())
for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
    shutil.copytree(package, target / Path(package).name)
(target / (here / "leaves-out").read_text()).unlink()
"""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "path" / "uv"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(UV)
    (package / "leaves-out").write_text("finetune_cli/console.py")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return package


def calls(uv: Path) -> list[Any]:
    return [json.loads(line) for line in (uv / "calls").read_text().splitlines()]


def work(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


def test_what_the_operators_image_has_unlocked_and_lacks_is_named(uv: Path, tmp_path: Path) -> None:
    assert list(problems("operator/Dockerfile", work(tmp_path))) == [
        "torch 2.13.0+cu130 has no constraint (x86_64-manylinux_2_36)",
        "torch 2.13.0+cu130 has no constraint (aarch64-manylinux_2_36)",
        "finetune_cli/console.py is not in the image",
    ]
    intel, arm, project = calls(uv)
    for (words, files, _), platform in ((intel, "x86_64"), (arm, "aarch64")):
        assert {"--dry-run", "--only-binary", "operator", "3.11.14"} <= set(words)
        assert f"{platform}-manylinux_2_36" in words
        assert files[-1] == "pyproject.toml", "the source comes after"
        assert all(file.startswith("lock/") for file in files[:-1])
    assert "--dry-run" not in project[0]
    assert project[0][-1] == "."


def test_the_trainers_image_has_its_torch_locked(uv: Path, tmp_path: Path) -> None:
    assert list(problems("trainer_image/Dockerfile", work(tmp_path))) == [
        "finetune_cli/console.py is not in the image"
    ]
    (words, _, builds_operators), *_ = calls(uv)
    assert words[words.index("--no-binary") + 1] == "deepspeed"
    assert builds_operators == "0"


def test_nccl_finds_the_libraries_with_which_it_uses_rdma() -> None:
    """It loads them at run time, and does without where they lack."""
    run = list(commands((ROOT / "trainer_image" / "Dockerfile").read_text()))
    (installs,) = (c for c in run if c.words[:2] == ("apt-get", "install"))
    assert {"libibverbs1", "ibverbs-providers", "librdmacm1"} <= set(installs.words)
    assert run.index(installs) > run.index(next(c for c in reversed(run) if c.words[0] == "uv"))


def test_what_can_not_be_resolved_says_why(uv: Path, tmp_path: Path) -> None:
    (uv / "fails").touch()
    with pytest.raises(CanNotBeBuilt, match=r"--extra operator\nno solution found"):
        list(problems("operator/Dockerfile", work(tmp_path)))
    with pytest.raises(CanNotBeBuilt, match=r"--extra local\nno solution found"):
        demo(tmp_path / "work")
    assert {"--dry-run", "--only-binary", ":all:"} <= set(calls(uv)[-1][0])


def test_what_the_image_starts_with_has_to_load(uv: Path, tmp_path: Path) -> None:
    (uv / "leaves-out").write_text("finetune_contract/reasons.py")
    with pytest.raises(CanNotBeBuilt, match=r"import finetune_trainer\.launch\n(?s:.*)\.reasons'"):
        list(problems("trainer_image/Dockerfile", work(tmp_path)))


def test_a_package_that_no_constraint_pins_is_named() -> None:
    pins = pinned(CONSTRAINTS)
    assert unlocked(PRINTED, pins) == ["torch 2.13.0+cu130 has no constraint"]
    assert unlocked(PRINTED, pins | pinned("torch==2.13.0\n")) == []


@pytest.mark.parametrize("line", ["torch>=2", "torch", "# torch==2.13.0", "pytorch==2.13.0"])
def test_only_one_version_is_a_pin(line: str) -> None:
    assert "torch" not in pinned(line)


def test_a_resolution_that_says_nothing_proves_nothing() -> None:
    assert unlocked("Would make no changes\n", frozenset()) == ["nothing would be installed"]


def test_an_image_starts_with_the_module_of_its_command() -> None:
    assert entry('FROM a\nCMD ["python", "-m", "app.main", "--help"]\n') == "app.main"

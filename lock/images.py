"""Tell without Docker whether the images can be built, and of nothing but what is locked.

python lock/images.py    exit 1 and name what a Dockerfile would fail on, or install unlocked

What each Dockerfile lets uv install is resolved anew, by its own command with `--dry-run`, into an
empty directory for each kind of machine that images are built for. Then the project is installed
from what is copied into the image, and what the image starts with is imported from there. What
`make demo` installs is resolved too: neither may take a compiler.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from packaging.utils import canonicalize_name

from check import CONSTRAINTS
from dockerfile import Command, commands, context

ROOT = CONSTRAINTS.parent.parent
DOCKERFILES = ("operator/Dockerfile", "trainer_image/Dockerfile")
# Debian 12, which the base image is made of, has glibc 2.36.
PLATFORMS = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36")
# What installs all, and builds this project and the sdist of DeepSpeed.
TOOLS = ("uv", "hatchling", "setuptools")
DEMO = Command(
    words=(
        *("uv", "pip", "install", "--constraint", str(CONSTRAINTS)),
        *("--only-binary", ":all:", "--no-binary", "deepspeed"),
        *("--requirements", "pyproject.toml", "--extra", "local"),
    ),
    environment={"DS_BUILD_OPS": "0"},
    copied=("pyproject.toml",),
)


class CanNotBeBuilt(Exception):
    """A command fails; the message holds it and what it printed."""


def problems(dockerfile: str, work: Path) -> Iterator[str]:
    """Yield what is wrong with an image; `work` is an empty directory.

    Raises:
        CanNotBeBuilt: if a command fails.
    """
    text = (ROOT / dockerfile).read_text()
    dependencies, project = (c for c in commands(text) if c.words[:3] == ("uv", "pip", "install"))
    source, installed = work / "src", work / "installed"
    pins = _pins(dependencies)
    yield from (f"{tool} has no constraint" for tool in TOOLS if tool not in pins)
    _copy(dependencies, source)
    for platform in PLATFORMS:
        printed = _resolve(dependencies, source, _python(text), platform)
        yield from (f"{found} ({platform})" for found in unlocked(printed, pins))
    _copy(project, source)
    _install(project, source, installed)
    yield from (f"{name} is not in the image" for name in _missing(installed))
    _run([sys.executable, "-c", f"import {entry(text)}"], work, {"PYTHONPATH": str(installed)})


def demo(work: Path) -> tuple[str, ...]:
    """Return nothing. Raises CanNotBeBuilt if not all that `make demo` installs is a wheel."""
    _copy(DEMO, work)
    _resolve(DEMO, work, "3.11", PLATFORMS[0])
    return ()


def unlocked(printed: str, pins: frozenset[str]) -> list[str]:
    """Return what is wrong with the packages that uv says it would install."""
    found = re.findall(r"^ \+ ([\w.-]+)==(\S+)", printed, re.MULTILINE)
    if not found:
        return ["nothing would be installed"]
    return [
        f"{name} {version} has no constraint"
        for name, version in found
        if canonicalize_name(name) not in pins
    ]


def pinned(constraints: str) -> frozenset[str]:
    """Return the packages that constraints pin to one version."""
    names = re.findall(r"^([\w.-]+)==", constraints, re.MULTILINE)
    return frozenset(map(canonicalize_name, names))


def entry(text: str) -> str:
    """Return the module that an image starts with."""
    [words] = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    command: list[str] = json.loads(words)
    return command[command.index("-m") + 1]


def _pins(command: Command) -> frozenset[str]:
    pairs = zip(command.words, command.words[1:], strict=False)
    files = [value for option, value in pairs if option == "--constraint"]
    return pinned("\n".join((ROOT / file).read_text() for file in files))


def _python(text: str) -> str:
    [version] = re.findall(r"^ARG BASE_IMAGE=python:([\d.]+)-", text, re.MULTILINE)
    return str(version)


def _copy(command: Command, target: Path) -> None:
    """Copy what the image has of the repository when the command runs."""
    for file in context(ROOT):
        if any(Path(copied) in (Path(), file, *file.parents) for copied in command.copied):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, target / file)


def _resolve(command: Command, source: Path, python: str, platform: str) -> str:
    dry = ("--dry-run", "--python-version", python, "--python-platform", platform)
    return _install(command, source, source / "bare", *dry)


def _install(command: Command, source: Path, target: Path, *options: str) -> str:
    own = ["--target", str(target), *options]
    words = [sys.executable, "-m", *command.words[:3], *own, *command.words[3:]]
    return _run(words, source, command.environment)


def _run(words: list[str], where: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        words,
        cwd=where,
        env={"UV_SYSTEM_CERTS": "1", **os.environ, **environment},  # as in the images
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CanNotBeBuilt(f"{' '.join(words)}\n{done.stdout}")
    return done.stdout


def _missing(installed: Path) -> list[str]:
    """Return the files of the wheel's packages, as the repository has them, that lack there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [
        file.relative_to((ROOT / package).parent)
        for package in packages
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    return sorted(str(file) for file in files if not (installed / file).exists())


def main() -> int:
    """Check each image and the demo; return the exit code."""
    checks: dict[str, Callable[[Path], Iterable[str]]] = {
        **{dockerfile: partial(problems, dockerfile) for dockerfile in DOCKERFILES},
        "make demo": demo,
    }
    found = []
    for name, check in checks.items():
        with tempfile.TemporaryDirectory(prefix="finetune-image-") as work:
            try:
                found += [f"{name}: {problem}" for problem in check(Path(work))]
            except CanNotBeBuilt as failure:
                found.append(f"{name}: {failure}")
    for line in found:
        sys.stderr.write(f"{line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

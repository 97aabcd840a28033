"""Tell without Docker whether the images can be built, and of nothing but what is locked.

python lock/images.py    exit 1 and name what a Dockerfile would fail on, or install unlocked

What each Dockerfile lets uv install is resolved anew, by its own command with `--dry-run`, into an
empty directory for each kind of machine that images are built for. Then the project is installed
from what is copied into the image, and what the image starts with is imported from there.
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
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import canonicalize_name

from check import CONSTRAINTS
from dockerfile import Command, commands, context

ROOT = CONSTRAINTS.parent.parent
DOCKERFILES = ("operator/Dockerfile", "trainer_image/Dockerfile")
# Debian 12, which the base image is made of, has glibc 2.36.
PLATFORMS = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36")


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
    _copy(dependencies, source)
    for platform in PLATFORMS:
        dry = ("--dry-run", "--python-version", _python(text), "--python-platform", platform)
        printed = _install(dependencies, source, work / "bare", *dry)
        yield from (f"{found} ({platform})" for found in unlocked(printed, _pins(dependencies)))
    _copy(project, source)
    _install(project, source, installed)
    yield from (f"{name} is not in the image" for name in _missing(installed))
    _run([sys.executable, "-c", f"import {entry(text)}"], work, {"PYTHONPATH": str(installed)})


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


def _install(command: Command, source: Path, target: Path, *options: str) -> str:
    own = ["--target", str(target), *options]
    words = [sys.executable, "-m", *command.words[:3], *own, *command.words[3:]]
    return _run(words, source, command.environment)


def _run(words: list[str], where: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        words,
        cwd=where,
        env={**os.environ, **environment},
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
    """Check each image; return the exit code."""
    found = []
    for dockerfile in DOCKERFILES:
        with tempfile.TemporaryDirectory(prefix="finetune-image-") as work:
            try:
                found += [f"{dockerfile}: {what}" for what in problems(dockerfile, Path(work))]
            except CanNotBeBuilt as failure:
                found.append(f"{dockerfile}: {failure}")
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""What this repository's Dockerfiles do, read without Docker: what they use of the language."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Command:
    """One command of a RUN line, as its shell sees it."""

    words: tuple[str, ...]
    environment: dict[str, str]  # that it is given in front of it
    copied: tuple[str, ...]  # from the context until then, in this stage


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of RUN lines; arguments have their defaults, unknown ones are empty."""
    known: dict[str, str] = {}
    copied: list[str] = []
    for line in _lines(text):
        instruction, _, rest = line.partition(" ")
        if instruction == "ARG":
            name, _, default = rest.partition("=")
            known.setdefault(name, "".join(shlex.split(_filled(default, known))))
        elif instruction == "FROM":
            copied = []
        elif instruction == "COPY" and not rest.startswith("--from"):
            copied += rest.split()[:-1]
        elif instruction == "RUN":
            for part in re.sub(r"--mount=\S+", "", rest).split("&&"):
                yield _command(part, known, tuple(copied))


def _lines(text: str) -> list[str]:
    """Return the instructions, each in one line."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", kept)
    return [line for line in joined.splitlines() if line.strip()]


def _filled(text: str, known: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), text)


def _command(text: str, known: dict[str, str], copied: tuple[str, ...]) -> Command:
    words = shlex.split(_filled(text, known))
    environment: dict[str, str] = {}
    while words and re.match(r"\w+=", words[0]):
        name, _, environment[name] = words.pop(0).partition("=")
    return Command(tuple(words), environment, copied)


def context(root: Path) -> list[Path]:
    """Return the files that .dockerignore leaves, as paths from the root."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line]
    tops = (path for path in root.iterdir() if _kept(path.relative_to(root), rules))
    files = (file for top in tops for file in (top, *top.rglob("*")) if file.is_file())
    return sorted(path for file in files if _kept(path := file.relative_to(root), rules))


def _kept(path: Path, rules: list[str]) -> bool:
    """Tell what the last rule says that fits the path or a folder above it."""
    kept = True
    names = [str(path), *map(str, path.parents[:-1])]
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(_fits(name, pattern) for name in names):
            kept = rule.startswith("!")
    return kept


def _fits(name: str, pattern: str) -> bool:
    anywhere = pattern.startswith("**/")
    return fnmatch(name, pattern) or (anywhere and fnmatch(name, pattern.removeprefix("**/")))

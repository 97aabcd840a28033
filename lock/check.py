"""Compare what is installed with constraints.txt: a change must pass on any machine, on any day.

python lock/check.py    exit 1 and name what is not locked, or not as it is locked

Torch is left out, and so is what only torch needs: its build belongs to the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
DEVELOPMENT = Requirement("finetune-operator[dev]")  # has the extras of both images in it
UNLOCKED = frozenset({"torch"})


def locked(text: str) -> dict[str, Requirement]:
    """Return the constraint of each package that has one for this Python and machine."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    constraints = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(constraint.name): constraint
        for constraint in constraints
        if constraint.marker is None or constraint.marker.evaluate()
    }


def problems(
    root: Requirement,
    constraints: Mapping[str, Requirement],
    find: Callable[[str], Distribution] = distribution,
) -> list[str]:
    """Return what is wrong with the packages that `root` needs, itself left out."""
    found = []
    for name in sorted(_needed(root, find) - {canonicalize_name(root.name)}):
        constraint, version = constraints.get(name), _version(name, find)
        if constraint is None:
            found.append(f"{name} has no constraint")
        elif version is None:
            found.append(f"{name} is not installed")
        elif not constraint.specifier.contains(version, prereleases=True):
            found.append(f"{name} {version} is installed, the constraint is {constraint}")
    return found


def _needed(root: Requirement, find: Callable[[str], Distribution]) -> set[str]:
    """Return the packages that a requirement needs, with itself and all that those need."""
    seen: set[tuple[str, str]] = set()  # a package, and one of its extras or ""
    ahead = [root]
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if name not in UNLOCKED and (name, extra) not in seen:
                seen.add((name, extra))
                ahead += _requirements(name, extra, find)
    return {name for name, _ in seen}


def _requirements(
    name: str, extra: str, find: Callable[[str], Distribution]
) -> Iterator[Requirement]:
    """Yield what an installed package requires here, or an extra of it."""
    try:
        texts = find(name).requires or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, texts):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _version(name: str, find: Callable[[str], Distribution]) -> str | None:
    try:
        return find(name).version
    except PackageNotFoundError:
        return None


def main() -> int:
    """Check this environment; return the exit code."""
    found = problems(DEVELOPMENT, locked(CONSTRAINTS.read_text()))
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    if found:
        sys.stderr.write("run `make lock`, then `make check` again\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

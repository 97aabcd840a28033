"""What is installed and not locked is noticed, and torch is left to the machine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from check import CONSTRAINTS, locked, problems

INSTALLED = {
    "app": ("1", ["web>=1", 'app[gpu]; extra == "dev"', 'torch>=2; extra == "gpu"']),
    "web": ("1.5", ["Http_Client[fast]", 'winlib; sys_platform == "win32"']),
    "http-client": ("3.0b1", ['zippy; extra == "fast"', 'slow; extra == "other"']),
    "zippy": ("2", []),
    "torch": ("2.9+cpu", ["cudalib"]),
    "cudalib": ("1", []),
}
LOCK = "# made by a tool\nweb==1.5\nhttp-client==3.0b1 ; python_version >= '3'\nzippy==2\n"


def find(name: str) -> Any:
    if name not in INSTALLED:
        raise PackageNotFoundError(name)
    version, requires = INSTALLED[name]
    return SimpleNamespace(version=version, requires=requires)


def found(lock: str) -> list[str]:
    return problems(Requirement("app[dev]"), locked(lock), find)


def test_nothing_is_wrong_with_what_is_installed_as_it_is_locked() -> None:
    assert found(LOCK) == []


@pytest.mark.parametrize("package", ["web", "http-client", "zippy"])
def test_a_package_without_a_constraint_is_named(package: str) -> None:
    lines = [line for line in LOCK.splitlines() if not line.startswith(package)]
    assert found("\n".join(lines)) == [f"{package} has no constraint"]


def test_a_constraint_for_another_python_is_none() -> None:
    assert found(LOCK.replace(">= '3'", "< '3'")) == ["http-client has no constraint"]


def test_another_version_is_named() -> None:
    told = "zippy 2 is installed, the constraint is zippy==2.1"
    assert found(LOCK.replace("zippy==2", "zippy==2.1")) == [told]


def test_what_is_locked_and_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(INSTALLED, "zippy")
    assert found(LOCK) == ["zippy is not installed"]


def test_the_locks_are_exact_name_no_place_and_share_nothing() -> None:
    here, images = (exact(path) for path in (CONSTRAINTS, CONSTRAINTS.with_name("torch.txt")))
    assert not here & images
    assert {"torch", "triton"} <= images
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in here)


def exact(path: Path) -> set[str]:
    """Return the names in a lock, each of which has one version."""
    text = path.read_text()
    assert "://" not in text
    assert "\n-" not in text
    pins = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    assert all([clause.operator for clause in pin.specifier] == ["=="] for pin in pins)
    return {pin.name for pin in pins}

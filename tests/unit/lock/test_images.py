"""What an image would install unlocked is named."""

from __future__ import annotations

import pytest

from images import entry, pinned, unlocked

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

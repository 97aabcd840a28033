"""Dockerfiles and .dockerignore are read as Docker reads them, as far as these go."""

from __future__ import annotations

from pathlib import Path

from dockerfile import Command, commands, context

TEXT = """\
# a comment \\
ARG BASE=python:3
ARG BUILD=$BASE
FROM $BUILD AS build
ARG INDEX
ARG LOCK=a.txt
ARG MORE=""
COPY pyproject.toml ./
# said within
RUN --mount=type=secret,id=netrc,target=/root/.netrc \\
    python -m venv /opt \\
 && OPS=0 uv pip install \\
      --constraint ${LOCK} $MORE .
COPY . .
RUN build $INDEX
FROM $BASE
COPY --from=build /opt /opt
RUN start
CMD ["python"]
"""


def test_commands_have_what_was_set_and_copied_before_them() -> None:
    assert list(commands(TEXT)) == [
        Command(("python", "-m", "venv", "/opt"), {}, ("pyproject.toml",)),
        Command(
            ("uv", "pip", "install", "--constraint", "a.txt", "."),
            {"OPS": "0"},
            ("pyproject.toml",),
        ),
        Command(("build",), {}, ("pyproject.toml", ".")),
        Command(("start",), {}, ()),
    ]


def test_the_last_rule_that_fits_a_file_or_a_folder_above_it_decides(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!lock\n!app\n**/tests\n**/Dockerfile\n")
    for name in (
        "lock/a.txt",
        "app/deep/code.py",
        "app/Dockerfile",
        "app/tests/test.py",
        "app/deep/tests/more/test.py",
        "secret/key",
        "loose.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(map(str, context(tmp_path))) == ["app/deep/code.py", "lock/a.txt"]

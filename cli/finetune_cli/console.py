"""The command line: options of the form NAME=VALUE; results to stdout, all else to stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from finetune_contract.foreign import printable

OUT = Console(soft_wrap=True)
ERR = Console(stderr=True, soft_wrap=True)

INVALID_FILE = 3
INTERRUPTED = 130


def print_out(text: str) -> None:
    """Print a line of the result, as it is."""
    OUT.print(_shown(text), markup=False, highlight=False)


def print_error(text: str) -> None:
    """Print what went wrong and what to do."""
    ERR.print(_shown(text), markup=False, highlight=False, style="red")


def print_warning(text: str) -> None:
    """Print what is hardly as it should be, and goes on all the same."""
    ERR.print(_shown(text), markup=False, highlight=False, style="yellow")


def _shown(text: str) -> str:
    """Return a text without what a terminal would obey: files and clusters are others' too."""
    return "\n".join(printable(line, 10 * len(line) + 1) for line in text.split("\n"))


def refusal(message: str, code: int = INVALID_FILE) -> typer.Exit:
    """Print what went wrong and what to do; return what ends the command."""
    print_error(message)
    return typer.Exit(code)


def missing(message: str, extra: str) -> typer.Exit:
    """Print what a command lacks and how to install it; return what ends the command."""
    install = f'python -m pip install "finetune-operator[{extra}]"'
    return refusal(f"{message}; install it with: {install}", 2)


@contextmanager
def refusing(*errors: type[Exception], code: int = INVALID_FILE) -> Iterator[None]:
    """End the command by what one of these errors says."""
    try:
        yield
    except errors as error:
        raise refusal(str(error), code) from None


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Exit with code 3 and say why, if a file can not be read as text."""
    try:
        yield
    except OSError as error:
        raise refusal(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise refusal(f"{name}: is not UTF-8 text (byte {error.start})") from None


def pairs(texts: Iterable[str] | None, form: str) -> dict[str, str]:
    """Return the values of a repeatable option by their names; `form` is how it is written."""
    found = {}
    for text in texts or []:
        name, _, value = text.partition("=")
        if not (name and value):
            raise typer.BadParameter(f"{text!r} is not {form}")
        found[name] = value
    return found


def paths(texts: Iterable[str] | None, form: str) -> dict[str, Path]:
    """Return the paths of a repeatable option by their names."""
    return {name: Path(path).expanduser() for name, path in pairs(texts, form).items()}

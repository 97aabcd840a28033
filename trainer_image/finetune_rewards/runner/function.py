"""A user's scoring function: loaded from its source, called as TRL calls one, its answer judged.

TRL's keyword arguments (trl.GRPOTrainer, reward_funcs): prompts, completions, completion_ids,
trainer_state, log_extra, log_metric and the rows' other columns. A function without **kwargs is
given those that it names.
"""

from __future__ import annotations

import asyncio
import inspect
import numbers
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from finetune_rewards.scores.answers import items
from finetune_rewards.scores.blame import Code, blame
from finetune_rewards.scores.samples import Item, Samples

MODULE = "reward"
MISSING_REMEDY = (
    "; it must be in the trainer's image, and for a try beside finetune, not by pip install --user"
)


class Invalid(Exception):
    """The source does not load, or has no such function."""


class Function:
    """A loaded function. One event loop serves an async one for good, so clients stay usable."""

    def __init__(self, code: Code, name: str) -> None:
        """Run the source; raise Invalid."""
        self._code = code
        module = ModuleType(MODULE)
        module.__file__ = code.file
        sys.modules[MODULE] = module
        try:
            exec(compile(code.source, code.file, "exec"), module.__dict__)  # noqa: S102
        except BaseException as error:  # the user's code may even call sys.exit
            remedy = MISSING_REMEDY if isinstance(error, ModuleNotFoundError) else ""
            raise Invalid(blame(error, code) + remedy) from error
        self._call = getattr(module, name, None)
        if not callable(self._call):
            raise Invalid(f"{code.file} has no function {name}")
        self._accepts = _accepted(self._call)
        self._loop = asyncio.Runner()

    def score(self, samples: Samples) -> list[Item]:
        """Return an item per completion; whatever the function raises is an error of each."""
        assert self._call is not None
        try:
            answer = self._call(**self._arguments(samples))
            if inspect.isawaitable(answer):
                answer = self._loop.run(_awaited(answer))
            return items(_plain(answer, len(samples)), len(samples))
        except MemoryError:  # what is left may be too little to go on with
            raise
        except BaseException as error:  # noqa: BLE001 - it is the user's code, sys.exit included
            return [Item(error=blame(error, self._code, samples))] * len(samples)

    def _arguments(self, samples: Samples) -> dict[str, Any]:
        offered = {
            **samples.columns,
            "prompts": samples.prompts,
            "completions": samples.completions,
            "completion_ids": samples.completion_ids,
            "trainer_state": SimpleNamespace(global_step=samples.step),
            "log_extra": _log_extra,
            "log_metric": _log_metric,
        }
        return {name: value for name, value in offered.items() if self._accepts(name)}


async def _awaited(answer: Any) -> Any:
    return await answer


def _accepted(function: Callable[..., Any]) -> Callable[[str], bool]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return lambda name: True
    named = {
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return named.__contains__


def _log_extra(column: str, values: list[Any]) -> None:
    """Take a column for TRL's table of completions, which there is none of here."""


def _log_metric(name: str, value: float) -> None:
    print(f"{name} {value}")  # noqa: T201 - into the runner's log


def _plain(answer: Any, count: int) -> Any:
    """Return arrays, tensors and numbers of any kind as lists and floats; the rest as it is."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if not isinstance(answer, list | tuple) or len(answer) != count:
        return answer
    return [_number(value) for value in answer]


def _number(value: Any) -> Any:
    if hasattr(value, "item"):  # of an array library
        value = value.item()
    return float(value) if isinstance(value, numbers.Real) else value

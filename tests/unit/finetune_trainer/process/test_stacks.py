"""What ranks tell of where they stand becomes a sentence that names the one the others wait for."""

from __future__ import annotations

import pytest

from finetune_trainer.process.ending import PACKAGE
from finetune_trainer.process.stacks import Stack, in_words

COLLECTIVE = "/lib/torch/distributed/distributed_c10d.py"


def stack(*frames: tuple[str, int, str], state: str = "S (sleeping)") -> Stack:
    """Return what faulthandler writes of a process with two threads, the main one last."""
    lines = "".join(f'  File "{file}", line {line} in {name}\n' for file, line, name in frames)
    other = 'Thread 0x00007f (most recent call first):\n  File "/lib/threading.py", line 1 in run\n'
    return Stack(state, f"{other}\nCurrent thread 0x00007e (most recent call first):\n{lines}")


WAITS = stack((COLLECTIVE, 2501, "broadcast"), (f"{PACKAGE}/process/distributed.py", 99, "lead"))
READS = stack(
    ("/lib/socket.py", 700, "readinto"),
    ("/lib/http/client.py", 5, "read"),
    (f"{PACKAGE}/data/lines.py", 40, "lines"),
    (f"{PACKAGE}/process/distributed.py", 99, "lead"),
)
STEPS = stack((f"{PACKAGE}/step/engine.py", 7, "step"), (f"{PACKAGE}/loop.py", 8, "run"))


@pytest.mark.parametrize(
    ("stacks", "words"),
    [
        (
            {0: WAITS, 1: READS, 2: WAITS},
            "rank 1 in lib/socket.py:700 readinto called from data/lines.py:40 lines; "
            "ranks 0, 2 waiting for another",
        ),
        (
            {0: WAITS, 1: WAITS},
            "ranks 0, 1 in distributed/distributed_c10d.py:2501 broadcast "
            "called from process/distributed.py:99 lead",
        ),
        ({0: STEPS, 1: STEPS}, "ranks 0, 1 in step/engine.py:7 step"),
        (
            {0: Stack("D (disk sleep)", ""), 1: WAITS},
            "rank 0 in no frame of its own (it is D (disk sleep)); rank 1 waiting for another",
        ),
    ],
)
def test_the_rank_that_others_wait_for_is_named(stacks: dict[int, Stack], words: str) -> None:
    assert in_words(stacks) == words


def test_ranks_that_never_began_stand_nowhere() -> None:
    assert in_words({}) == "none has begun"

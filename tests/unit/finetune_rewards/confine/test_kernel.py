"""A call that the kernel refuses is never taken for one that it made."""

from __future__ import annotations

import errno

import pytest

from finetune_rewards.confine import kernel
from support.rewards.refused_calls import without

NO_SUCH = 100_000


def test_what_the_kernel_refuses_is_raised() -> None:
    with pytest.raises(OSError, match="Function not implemented") as caught:
        kernel.call(NO_SUCH)
    assert caught.value.errno == errno.ENOSYS
    with pytest.raises(OSError, match="Invalid argument") as caught:
        kernel.prctl(NO_SUCH)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("refused", ["capget", "capset"])
def test_capabilities_that_stay_are_not_passed_over(refused: str) -> None:
    with pytest.raises(OSError, match="Function not implemented"):
        without((refused,), kernel.drop_capabilities)

"""A call that the kernel refuses is never taken for one that it made."""

from __future__ import annotations

import ctypes
import errno
from types import SimpleNamespace

import pytest

from finetune_rewards.confine import kernel

NO_SUCH = 100_000


def test_what_the_kernel_refuses_is_raised() -> None:
    with pytest.raises(OSError, match="Function not implemented") as caught:
        kernel.call(NO_SUCH)
    assert caught.value.errno == errno.ENOSYS
    with pytest.raises(OSError, match="Invalid argument") as caught:
        kernel.prctl(NO_SUCH)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("refused", ["capget", "capset"])
def test_capabilities_that_stay_are_not_passed_over(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {name: lambda *_: 0 for name in ("capget", "capset")}
    calls[refused] = lambda *_: -1
    monkeypatch.setattr(kernel, "_libc", SimpleNamespace(**calls))
    ctypes.set_errno(errno.EPERM)
    with pytest.raises(PermissionError, match="Operation not permitted"):
        kernel.drop_capabilities()

"""The table of reasons is whole, and its exit codes tell reasons apart."""

from __future__ import annotations

from finetune_contract.reasons import (
    TABLE,
    Reason,
    Retry,
    advice,
    exit_code,
    reason_of_exit_code,
)


def test_every_reason_has_its_row() -> None:
    assert set(TABLE) == set(Reason)
    for reason, row in TABLE.items():
        assert row.meaning.endswith("."), reason
        if row.retry in (Retry.NEVER, Retry.COUNTED, Retry.WAIT, Retry.LESS_MEMORY):
            assert advice(reason), reason


def test_exit_codes_are_unique_and_lead_back() -> None:
    codes = [row.exit_code for row in TABLE.values() if row.exit_code is not None]
    assert len(codes) == len(set(codes))
    for reason, row in TABLE.items():
        if row.exit_code is None:
            assert exit_code(reason) == 1
        else:
            assert reason_of_exit_code(exit_code(reason)) is reason
    assert exit_code(Reason.SUCCEEDED) == 0
    # What shells, kernels and Python use for themselves is never ours.
    assert not {2, *range(126, 256)} & set(codes)
    assert reason_of_exit_code(137) is None

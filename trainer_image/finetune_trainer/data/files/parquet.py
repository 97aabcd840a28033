"""Parquet -> one object per row, a batch of rows in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.data.faults import FileError, Kind, RowError
from finetune_trainer.data.files.unpacked import ALWAYS, MOST_TIMES

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

MAGIC = b"PAR1"
BATCH_ROWS, BATCH_BYTES = 256, 2**22
READ_BYTES = 2**20  # of a column at a time


def row_count(path: Path) -> int:
    """Return the number of rows that the file tells of."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Yield the rows, counted from 1; raise FileError where the file is damaged."""
    import pyarrow  # type: ignore[import-untyped]

    number = 0
    with _opened(path) as file:
        batches = file.iter_batches(batch_size=_batch_rows(file), use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                found = [] if batch is None else batch.to_pylist(maps_as_pydicts="strict")
            except UnicodeDecodeError as error:
                raise FileError(
                    Kind.NOT_UTF8_FILE,
                    f"has text that is not UTF-8 in one of the {BATCH_ROWS} rows after {number}",
                ) from error
            except (pyarrow.ArrowException, OSError, KeyError) as error:
                raise _damaged() from error
            if batch is None:
                return
            for value in found:
                number += 1
                yield number, _row(value)


def _opened(path: Path) -> ParquetFile:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        # Read piece by piece: mapped pages, or whole columns ahead, would grow with the file.
        file = ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=READ_BYTES)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged() from error
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        raise FileError(Kind.DUPLICATE_COLUMN, "has two columns of the same name")
    if _unpacked_bytes(file) > ALWAYS + MOST_TIMES * path.stat().st_size:
        raise FileError(
            Kind.UNPACKS_TOO_FAR, f"unpacks to more than {MOST_TIMES} times its size; write it anew"
        )
    return file


def _unpacked_bytes(file: Any) -> int:
    known = file.metadata
    groups = map(known.row_group, range(known.num_row_groups))
    return int(sum(group.total_byte_size for group in groups))


def _batch_rows(file: ParquetFile) -> int:
    """Return how many rows are of a few MiB."""
    each = _unpacked_bytes(file) // max(1, int(file.metadata.num_rows))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, each)))


def _row(value: dict[str, Any]) -> dict[str, Any] | RowError:
    try:
        return {name: _plain(item, name) for name, item in value.items() if item is not None}
    except RowError as error:
        return error


def _plain(value: Any, name: str) -> Any:
    """Return a value as JSON has it; a field of an object that is null is none.

    Arrow gives every object all fields that any object of its column has.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise RowError(Kind.CONTROL_CHARACTER, f"'{name}' holds NUL")
        return value
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, dict):
        return {key: _plain(item, name) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item, name) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RowError(Kind.NON_FINITE_NUMBER, f"'{name}' holds NaN or Infinity")
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    what = "a duration" if isinstance(value, timedelta) else "bytes"
    raise RowError(
        Kind.UNSUPPORTED_VALUE, f"'{name}' holds {what}; leave the column out, or write it as text"
    )


def _damaged() -> FileError:
    return FileError(
        Kind.DAMAGED_FILE, "is no whole Parquet file, or an encrypted one; write and upload it anew"
    )

"""Copy a few rows of each file of GRPO's data to where rewards are tried on them; torch-free.

It runs with the data's credentials, so that what imports a user's code needs none. Each line is a
prompt as the rewards are given it: {"prompt": text or messages, "columns": {...}}.
"""

from __future__ import annotations

from finetune_contract.start import heed_sigterm

if __name__ == "__main__":
    heed_sigterm()

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune_contract.layout import Credentials
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.recipe import Columns, DataFormat, DataSource
from finetune_trainer.data.faults import FileError, RowError
from finetune_trainer.data.files.records import is_streamed, parsed, records
from finetune_trainer.data.lines import LONGEST_LINE, UTF8_MARK, is_blank
from finetune_trainer.methods.grpo.prompts.rows import prompt_reader
from finetune_trainer.process.ending import explain, failed
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.redaction import RedactedStream, Redaction
from finetune_trainer.store import hub
from finetune_trainer.store.data_files import part_uris
from finetune_trainer.store.sources import fetch_data
from finetune_trainer.store.storage import Role, Store, split_file_uri

log = logging.getLogger(__name__)

ROWS = 8
LOOKED_AT = 8  # lines for each row that is asked for, before none of them is good


def sample(
    source: DataSource,
    credentials_dir: str | None,
    rows: int,
    columns: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the JSON of the first prompts of a file; bad rows are for the preflight to list.

    `columns` is the job's data.columns.

    Raises:
        Failure: if the file can not be read, or its first rows are all bad.
    """
    read = prompt_reader(DataFormat.AUTO, {}, columns)
    found: list[str] = []
    first: RowError | None = None
    with TemporaryDirectory() as directory:
        values = _values(source, Path(directory), credentials_dir)
        try:
            for count, value in enumerate(values, start=1):
                try:
                    if isinstance(value, RowError):
                        raise value
                    found.append(read(value).document)
                except RowError as error:
                    first = first or error
                if len(found) == rows or count == LOOKED_AT * rows:
                    break
        except FileError as error:
            raise Failure(Reason.DATA_INVALID, f"{source.uri} {error}") from error
    if not found:
        why = f"its first row {first}" if first else "it has no rows"
        raise Failure(
            Reason.DATA_INVALID, f"{source.uri} holds no prompt that rewards can score: {why}"
        )
    return found


def _values(
    source: DataSource, directory: Path, credentials_dir: str | None
) -> Iterator[dict[str, Any] | RowError]:
    """Yield rows: of lines in a bucket no more is read than is asked for; else the file is
    fetched."""
    name, file_format = part_uris(source, credentials_dir)[0], source.file_format
    if not name.startswith(hub.SCHEME):
        parent, path = split_file_uri(name)
        chunks = Store(parent, Role.DATA, credentials_dir).chunks(path)
        beginning = next(chunks, b"")
        if is_streamed(beginning, name, file_format):
            yield from map(parsed, _lines(beginning.removeprefix(UTF8_MARK), chunks))
            return
    file = fetch_data(DataSource(uri=name), directory, credentials_dir, lambda count: None)
    for _, value in records(file, name, file_format, lambda *_: None):
        yield value


def _lines(rest: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines; of one that is too long only so much that this can be seen."""
    for chunk in chain(chunks, [b"\n"]):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line and not is_blank(line))
        if len(rest) > LONGEST_LINE:
            yield rest
            return


def main(words: Sequence[str] | None = None) -> int:
    """Write the rows; return the exit code of what stood in the way, whose Result is written."""
    arguments = _arguments(words)
    redaction = Redaction()
    redaction.watch(Credentials(data=arguments.credentials))
    logging.basicConfig(level=logging.INFO, stream=RedactedStream(sys.stderr, redaction))
    try:
        sources = [DataSource.model_validate_json(text) for text in arguments.source]
        rows = -(-ROWS // len(sources))
        columns = Columns.model_validate_json(arguments.columns).model_dump(exclude_none=True)
        found = [
            row for one in sources for row in sample(one, arguments.credentials, rows, columns)
        ]
    except BaseException as error:  # the process's edge: any end must become a Result
        log.error("the rows can not be read", exc_info=error)
        result = redaction.result(failed(explain(error), attempt=1, rank=0))
        arguments.termination_log.write_text(result.encode())
        return exit_code(result.reason)
    arguments.output.write_text("".join(f"{row}\n" for row in found))
    log.info("took %d rows of %s", len(found), ", ".join(source.uri for source in sources))
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.sample_rows")
    parser.add_argument(
        "--source",
        action="append",
        required=True,
        help="an entry of spec.data.train as JSON, a DataSource; may be repeated",
    )
    parser.add_argument("--columns", default="{}", help="spec.data.columns as JSON")
    parser.add_argument("--credentials", help="directory with the data's credentials")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())

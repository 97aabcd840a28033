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
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune_contract.layout import Credentials
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.recipe import DataSource
from finetune_trainer.data.faults import FileError, RowError
from finetune_trainer.data.lines import HEAD_BYTES, LONGEST_LINE, check_head, parse_line
from finetune_trainer.methods.grpo.prompts.rows import parse_prompt
from finetune_trainer.process.ending import explain, failed
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.redaction import RedactedStream, Redaction
from finetune_trainer.store import hub
from finetune_trainer.store.sources import fetch_data
from finetune_trainer.store.storage import Role, Store, split_file_uri

log = logging.getLogger(__name__)

ROWS = 8
LOOKED_AT = 8  # lines for each row that is asked for, before none of them is good


def sample(uri: str, credentials_dir: str | None, rows: int) -> list[str]:
    """Return the JSON of the first prompts of a file; bad rows are for the preflight to list.

    Raises:
        Failure: if the file can not be read, or its first rows are all bad.
    """
    found: list[str] = []
    first: RowError | None = None
    for count, line in enumerate(_lines(_chunks(uri, credentials_dir), uri), start=1):
        try:
            found.append(parse_prompt(parse_line(line)).document)
        except RowError as error:
            first = first or error
        if len(found) == rows or count == LOOKED_AT * rows:
            break
    if not found:
        why = f"its first row {first}" if first else "it has no rows"
        raise Failure(Reason.DATA_INVALID, f"{uri} holds no prompt that rewards can score: {why}")
    return found


def _chunks(uri: str, credentials_dir: str | None) -> Iterator[bytes]:
    if uri.startswith(hub.SCHEME):
        with TemporaryDirectory() as directory:
            path = fetch_data(
                DataSource(uri=uri), Path(directory), credentials_dir, lambda count: None
            )
            with path.open("rb") as file:
                while chunk := file.read(LONGEST_LINE):
                    yield chunk
        return
    parent, name = split_file_uri(uri)
    yield from Store(parent, Role.DATA, credentials_dir).chunks(name)


def _lines(chunks: Iterator[bytes], uri: str) -> Iterator[bytes]:
    """Yield lines; of one that is too long only so much that this can be seen."""
    rest = next(chunks, b"")
    try:
        check_head(rest[:HEAD_BYTES])
    except FileError as error:
        raise Failure(Reason.DATA_INVALID, f"{uri} {error}") from error
    for chunk in chain(chunks, [b"\n"]):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)
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
        rows = -(-ROWS // len(arguments.uri))
        found = [row for uri in arguments.uri for row in sample(uri, arguments.credentials, rows)]
    except BaseException as error:  # the process's edge: any end must become a Result
        log.error("the rows can not be read", exc_info=error)
        result = redaction.result(failed(explain(error), attempt=1, rank=0))
        arguments.termination_log.write_text(result.encode())
        return exit_code(result.reason)
    arguments.output.write_text("".join(f"{row}\n" for row in found))
    log.info("took %d rows of %s", len(found), ", ".join(arguments.uri))
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.sample_rows")
    parser.add_argument(
        "--uri", action="append", required=True, help="a file of spec.data.train; may be repeated"
    )
    parser.add_argument("--credentials", help="directory with the data's credentials")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())

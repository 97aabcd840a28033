"""The headers of a model's safetensors files: names, formats and shapes, without the weights.

Only the first bytes of each file are read (https://huggingface.co/docs/safetensors): its length in
8 bytes, little-endian, then the header in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from huggingface_hub.errors import SafetensorsParsingError

from finetune_contract.foreign import parse
from finetune_contract.reasons import Reason
from finetune_trainer.memory.shape import TensorHeader
from finetune_trainer.process.errors import Failure
from finetune_trainer.store import hub
from finetune_trainer.store.sources import WEIGHTS, ModelSource
from finetune_trainer.store.storage import Entry, Role, Store

AT_A_TIME = 8  # files
LENGTH_BYTES = 8
LONGEST = 100_000_000  # bytes; safetensors itself refuses longer ones


def read_headers(source: ModelSource, credentials_dir: str | None) -> dict[str, TensorHeader]:
    """Return the header of every tensor by its name."""
    files = [file for file in source.files if file.path.endswith(WEIGHTS)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        headers = pool.map(lambda file: _header(source, file, credentials_dir), files)
        return {name: header for file in headers for name, header in file.items()}


def _header(
    source: ModelSource, file: Entry, credentials_dir: str | None
) -> Mapping[str, TensorHeader]:
    identity = source.identity
    try:
        if identity.uri.startswith(hub.SCHEME):
            repository = hub.model_repository(identity.uri, identity.revision, credentials_dir)
            found = repository.safetensors_header(file.path, identity.revision)
        else:
            found = _parsed(Store(identity.uri, Role.MODEL, credentials_dir), file)
        if not all(map(_is_sound, found.values())):
            raise ValueError("a tensor's format or shape")
        return found
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorsParsingError) as error:
        raise Failure(
            Reason.MODEL_UNSUPPORTED, f"{identity.uri}/{file.path} is damaged; upload it again"
        ) from error


def _is_sound(header: TensorHeader) -> bool:
    sizes = all(type(size) is int and size >= 0 for size in header.shape)
    return isinstance(header.dtype, str) and sizes


def _parsed(store: Store, file: Entry) -> dict[str, TensorHeader]:
    if file.size < LENGTH_BYTES:
        raise ValueError("too short")
    length = int.from_bytes(store.read_range(file.path, 0, LENGTH_BYTES), "little")
    if not 0 < length <= min(LONGEST, file.size - LENGTH_BYTES):
        raise ValueError("the header's length")
    header: Any = parse(store.read_range(file.path, LENGTH_BYTES, length))
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return {
        name: TensorHeader(told["dtype"], tuple(told["shape"]))
        for name, told in header.items()
        if name != "__metadata__"
    }

"""`hf://` sources: models `hf://ORG/NAME`, data `hf://datasets/ORG/NAME[@REVISION]/PATH`.

The endpoint is HF_ENDPOINT's. Code from a repository is never run.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.memory.shape import TensorHeader
from finetune_trainer.process.ending import is_disk_full
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import rest
from finetune_trainer.store.credentials import read_key
from finetune_trainer.store.storage import Entry, OnBytes, Role

log = logging.getLogger(__name__)

SCHEME = "hf://"
DATASETS = "hf://datasets/"
ATTEMPTS = 5
TOO_MANY_REQUESTS, SERVER_ERRORS = 429, 500
LONGEST_REST = 310.0  # seconds that the hub may ask for; it counts requests in windows of 300
RESET = re.compile(r"\bt\s*=\s*(\d+)")  # in its header RateLimit


def base_model_name(uri: str) -> str:
    """Return what loaders know the base model by: the hub's `ORG/NAME`, else the URI."""
    return uri.removeprefix(SCHEME)


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, as a job's field names it."""

    uri: str
    role: Role
    kind: str  # "model" or "dataset"
    name: str
    revision: str | None
    token: str | None
    longest_wait: float = 20.0  # seconds from a try to the next
    patience: float = 1800.0  # seconds, with a hub that asks for fewer requests

    def resolve(self) -> tuple[str, list[Entry]]:
        """Return the commit and the files of the revision."""
        try:
            with self._errors():
                info: Any = self._retrying()(
                    HfApi(_endpoint(), token=self.token or False).repo_info,
                    self.name,
                    revision=self.revision,
                    repo_type=self.kind,
                    files_metadata=True,
                )
            return str(info.sha), [
                Entry(f.rfilename, f.size or 0, _digest(f) or f.rfilename) for f in info.siblings
            ]
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise Failure(
                Reason.STORAGE_REFUSED,
                f"what answers for {self.uri} is no hub: see HF_ENDPOINT, or what is in its way",
            ) from error

    def download(self, path: str, commit: str, directory: Path, on_bytes: OnBytes) -> Path:
        """Write one file of a commit below a directory and return its path."""
        with self._errors(path):
            return Path(
                self._retrying()(
                    hf_hub_download,
                    self.name,
                    path,
                    revision=commit,
                    repo_type=self.kind,
                    local_dir=directory,
                    endpoint=_endpoint(),
                    token=self.token or False,
                    tqdm_class=_counter(on_bytes),
                )
            )

    def read(self, path: str, commit: str) -> bytes:
        """Return the bytes of one small file of a commit."""
        with TemporaryDirectory() as directory:
            return self.download(path, commit, Path(directory), lambda count: None).read_bytes()

    def safetensors_header(self, path: str, commit: str) -> dict[str, TensorHeader]:
        """Return the header of each tensor of a file, from the file's first bytes alone."""
        with self._errors(path):
            found: Any = self._retrying()(
                HfApi(_endpoint(), token=self.token or False).parse_safetensors_file_metadata,
                self.name,
                path,
                revision=commit,
            )
        return {name: TensorHeader(t.dtype, tuple(t.shape)) for name, t in found.tensors.items()}

    def _retrying(self) -> Retrying:
        doubling = wait_random_exponential(multiplier=0.5, max=self.longest_wait)

        def wait(state: RetryCallState) -> float:
            return max(doubling(state), _rest(_error(state)))

        def stop(state: RetryCallState) -> bool:
            if _status(_error(state)) == TOO_MANY_REQUESTS:
                return (state.seconds_since_start or 0.0) >= self.patience
            return state.attempt_number >= ATTEMPTS

        retry = retry_if_exception(_is_passing)
        return Retrying(
            stop=stop, wait=wait, sleep=rest, retry=retry, reraise=True, before_sleep=_say
        )

    @contextmanager
    def _errors(self, path: str = "") -> Iterator[None]:
        what = f"{self.uri} {path}".strip() + (f" at {self.revision}" if self.revision else "")
        field = self.role.credentials_field
        try:
            yield
        except GatedRepoError as error:
            raise Failure(
                Reason.ACCESS_DENIED,
                f"{self.uri} is gated: accept its terms, and put HF_TOKEN in the Secret of {field}",
            ) from error
        except RepositoryNotFoundError as error:
            raise Failure(
                self.role.not_found,
                f"{self.uri} does not exist, or the HF_TOKEN of {field} may not see it",
            ) from error
        # The first is huggingface_hub's word for "no connection", and a kind of EntryNotFoundError.
        except (LocalEntryNotFoundError, httpx2.TransportError) as error:
            raise self._unavailable(what) from error
        except (RevisionNotFoundError, EntryNotFoundError, HFValidationError) as error:
            raise Failure(self.role.not_found, f"{what} does not exist") from error
        except HfHubHTTPError as error:
            raise self._answered(_status(error), what) from error
        except (OSError, RuntimeError) as error:
            if not _is_transfer(error):
                raise
            raise self._transfer(error, what) from error

    def _answered(self, status: int | None, what: str) -> Failure:
        """Return what the hub's refusal means."""
        field = self.role.credentials_field
        if status in (401, 403):
            return Failure(
                Reason.ACCESS_DENIED,
                f"the hub refused {self.uri} ({status}) with the HF_TOKEN of {field}",
            )
        if status == TOO_MANY_REQUESTS:
            return Failure(
                Reason.STORAGE_UNAVAILABLE,
                f"the hub asks for fewer requests than {what} takes ({status}): an HF_TOKEN in the "
                f"Secret of {field} has more, a model.cache needs less",
            )
        if status is not None and status < SERVER_ERRORS:
            return Failure(Reason.STORAGE_REFUSED, f"the hub refused {what} ({status})")
        return self._unavailable(what)

    def _transfer(self, error: Exception, what: str) -> Failure:
        """Return hf_xet's errors, which share no class, in the words of the job."""
        if isinstance(error, PermissionError):
            field = self.role.credentials_field
            return Failure(
                Reason.ACCESS_DENIED, f"the hub refused {what} with the HF_TOKEN of {field}"
            )
        if isinstance(error, FileNotFoundError):
            return Failure(self.role.not_found, f"{what} does not exist")
        if is_disk_full(error):
            return Failure(Reason.DISK_FULL, f"no space left to download {what}")
        return self._unavailable(what)

    def _unavailable(self, what: str) -> Failure:
        return Failure(
            Reason.STORAGE_UNAVAILABLE, f"the hub did not answer for {what} ({self.role.field})"
        )


def model_repository(uri: str, revision: str | None, credentials_dir: str | None) -> Repository:
    """Return the repository of `hf://ORG/NAME`."""
    token = read_key(credentials_dir, CredentialKey.HF_TOKEN, Role.MODEL.credentials_field)
    return Repository(uri, Role.MODEL, "model", uri.removeprefix(SCHEME), revision, token)


def dataset_repository(uri: str, credentials_dir: str | None) -> tuple[Repository, str]:
    """Return the repository and the path in it of `hf://datasets/ORG/NAME[@REVISION][/PATH]`."""
    parts = uri.removeprefix(DATASETS).split("/", 2)
    if not uri.startswith(DATASETS) or len(parts) < 2 or not parts[1]:
        raise Failure(
            Reason.DATA_NOT_FOUND,
            f"{uri}: write hf://datasets/ORG/NAME, or hf://datasets/ORG/NAME/PATH for a file",
        )
    name, _, revision = parts[1].partition("@")
    token = read_key(credentials_dir, CredentialKey.HF_TOKEN, Role.DATA.credentials_field)
    repository = Repository(
        uri, Role.DATA, "dataset", f"{parts[0]}/{name}", revision or None, token
    )
    return repository, "/".join(parts[2:])


def _digest(file: Any) -> str | None:
    """Return what the hub knows a file's content by: sha256 of a large one, else git's blob."""
    return f"sha256:{file.lfs.sha256}" if file.lfs else file.blob_id


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")


def _is_passing(error: BaseException) -> bool:
    """Tell whether a request may succeed if it is made again."""
    if (status := _status(error)) is not None:
        return status == TOO_MANY_REQUESTS or status >= SERVER_ERRORS
    if isinstance(error, httpx2.TransportError | LocalEntryNotFoundError):
        return True
    lasting = isinstance(error, PermissionError | FileNotFoundError) or is_disk_full(error)
    return _is_transfer(error) and not lasting


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _status(error: BaseException | None) -> int | None:
    """Return the status of the hub's answer, if there was one."""
    answered = isinstance(error, HfHubHTTPError) and error.response is not None
    return int(error.response.status_code) if answered else None  # type: ignore[union-attr]


def _rest(error: BaseException | None) -> float:
    """Return how many seconds of rest the hub asks for; 0 if none."""
    if _status(error) != TOO_MANY_REQUESTS:
        return 0.0
    headers = error.response.headers  # type: ignore[union-attr]
    told = RESET.search(headers.get("RateLimit", "")) or re.match(
        r"(\d+)$", headers.get("Retry-After", "")
    )
    return min(float(told[1]), LONGEST_REST) if told else 0.0


def _say(state: RetryCallState) -> None:
    """Say that the hub lets us wait."""
    if state.next_action is not None and _status(_error(state)) == TOO_MANY_REQUESTS:
        log.warning("the hub asks for fewer requests: waits %.0f s", state.next_action.sleep)


def _is_transfer(error: BaseException) -> bool:
    """Tell whether an error is hf_xet's: those of this machine's own disk have an errno, and a
    JSON text that nests too deeply did arrive."""
    if isinstance(error, HfHubHTTPError | RecursionError):
        return False
    return isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno is None)


def _counter(on_bytes: OnBytes) -> type[Any]:
    """Return a progress bar class that draws nothing and passes the bytes on."""

    class Counter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            on_bytes(int(n or 0))

    return Counter

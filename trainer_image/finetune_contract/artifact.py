"""The artifact protocol: a directory of files and a manifest, written last.

Without its manifest an artifact does not exist. `latest.json` is the one small file that readers
start from; attempts claim it and commit to it by conditional writes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune_contract.model import Message, Sealed
from finetune_contract.resolved import RoleCoverage

MANIFEST = "manifest.json"
LATEST = "latest.json"
VERSION: Literal["finetune.dev/artifact/v1alpha1"] = "finetune.dev/artifact/v1alpha1"

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class FileEntry(Message):
    """One file, by its path relative to the manifest."""

    path: str
    sha256: Digest
    bytes: Annotated[int, Field(ge=0)]


class ModelIdentity(Message):
    """The base model as it was resolved: for hf the commit, else a digest of the files' listing."""

    uri: str
    revision: str


class DatasetIdentity(Message):
    """One data file as it was read."""

    uri: str
    sha256: Digest
    rows: Annotated[int, Field(ge=0)]


class RewardIdentity(Message):
    """What a reward was beyond its recipe: the digest of user code, or a reward model's commit."""

    name: str
    revision: str


class RunIdentity(Message):
    """The attempt that wrote the artifact."""

    name: str
    uid: str
    attempt: Annotated[int, Field(ge=1)]


class Provenance(Message):
    """What an adapter was made from; equal provenance means that training again is pointless."""

    recipe_digest: Digest
    model: ModelIdentity
    datasets: tuple[DatasetIdentity, ...]
    eval_datasets: tuple[DatasetIdentity, ...] = ()
    init_from: Digest | None = None  # the manifest of the adapter that training began with
    rewards: tuple[RewardIdentity, ...] = ()
    chat_template: Digest | None = None  # of the job's own, as it was read


class TrainingSummary(Message):
    """How the training went. `published_step` is the step whose adapter this is."""

    steps: int
    supervised_tokens: int
    final_loss: float
    published_step: int
    eval_loss: float | None = None  # of the published adapter
    stopped_early: bool = False
    skipped_rows: int = 0
    ignored_keys: Annotated[dict[str, int], Field(default_factory=dict)]
    """How many rows have a key that means nothing, by its name."""
    final_reward: float | None = None  # GRPO: mean total of the last step's completions


class Serving(Message):
    """Whether vLLM can serve the adapter next to its base model, and why not."""

    vllm: bool
    why_not: str | None = None


class Manifest(Sealed):
    """`manifest.json`: every file with its digest, and what the adapter was made from."""

    version: Literal["finetune.dev/artifact/v1alpha1"]
    run: RunIdentity
    provenance: Provenance
    training: TrainingSummary
    lora: tuple[RoleCoverage, ...] = ()
    serving: Serving | None = None
    advice: tuple[str, ...] = ()  # what training could not mend
    files: Annotated[tuple[FileEntry, ...], Field(min_length=1)]

    @property
    def total_bytes(self) -> int:
        """Return the size of all files, the manifest not counted."""
        return sum(f.bytes for f in self.files)


class Claim(Message):
    """Who may commit next. `run` is drawn at each start: an attempt can be started twice."""

    uid: str
    attempt: Annotated[int, Field(ge=1)]
    run: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class ArtifactPointer(Message):
    """The artifact that readers should use."""

    path: str  # relative to the directory of latest.json
    digest: Digest
    provenance: Provenance


class Latest(Message):
    """`latest.json`."""

    version: Literal["finetune.dev/artifact/v1alpha1"]
    claim: Claim
    artifact: ArtifactPointer | None = None


def job_path(uid: str) -> str:
    """Return the directory of a job's attempts, relative to output.uri."""
    return f"runs/{uid}"


def run_path(uid: str, attempt: int, run: str) -> str:
    """Return the prefix under which alone one start of an attempt writes; `run` is its claim's."""
    return f"{job_path(uid)}/a{attempt}/{run}"


def stacks_path(uid: str, attempt: int, node: int) -> str:
    """Return where the stacks of a stalled attempt's ranks on one node are told."""
    return f"{job_path(uid)}/a{attempt}/stacks/node-{node}.txt"


def artifact_path(uid: str, attempt: int, run: str) -> str:
    """Return the directory of an attempt's artifact, relative to output.uri."""
    return f"{run_path(uid, attempt, run)}/artifact"

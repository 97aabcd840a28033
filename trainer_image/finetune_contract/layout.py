"""The layout: where and how an attempt runs. None of it changes the adapter."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.model import HttpUri, Message, Reach


class ZeroStage(IntEnum):
    """What DeepSpeed ZeRO shards: nothing, optimizer state, gradients too, parameters too."""

    DDP = 0
    OPTIMIZER = 1
    GRADIENTS = 2
    PARAMETERS = 3


class Offload(StrEnum):
    """What is kept in the host's memory instead of the device's."""

    OPTIMIZER = "Optimizer"
    PARAMETERS = "Parameters"


class Checkpointing(StrEnum):
    """Whether activations are computed again in the backward pass (arXiv 1604.06174)."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class TrackingType(StrEnum):
    """Where curves are sent while the run goes on."""

    MLFLOW = "MLflow"
    WANDB = "WandB"
    TENSORBOARD = "TensorBoard"


class RolloutEngine(StrEnum):
    """What draws completions."""

    BUILTIN = "Builtin"
    OPENAI = "OpenAI"


class CredentialKey(StrEnum):
    """File names in a directory of credentials, mounted from a Secret: AWS_* and ca.crt for s3,
    HF_TOKEN for gated models on hf, the others for the tracker."""

    ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
    SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105
    SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105
    ENDPOINT_URL = "AWS_ENDPOINT_URL"
    REGION = "AWS_REGION"
    CA_CERTIFICATE = "ca.crt"
    HF_TOKEN = "HF_TOKEN"  # noqa: S105
    WANDB_API_KEY = "WANDB_API_KEY"
    MLFLOW_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105
    MLFLOW_USERNAME = "MLFLOW_TRACKING_USERNAME"
    MLFLOW_PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105


class JobRef(Message):
    """The job an attempt belongs to. For `finetune run` the uid is the run id."""

    name: str
    namespace: str
    uid: str


class Credentials(Message):
    """Directories with one file per key; None means the ambient identity."""

    model: str | None = None
    data: str | None = None
    output: str | None = None
    tracking: str | None = None
    rollout: str | None = None
    rewards: dict[str, str] | None = None  # by the reward's name


class Heartbeat(Message):
    """Where rank 0 reports progress: a Lease in the job's namespace."""

    lease: str
    interval_seconds: Annotated[float, Field(gt=0)] = 15.0


class CheckpointPolicy(Message):
    """When checkpoints are made, whichever comes first, and how many complete ones are kept."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Save each time this many optimizer steps are done."""
    every_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """How many complete checkpoints are kept; older ones are deleted."""


class Tracker(Message):
    """One tracker."""

    type: TrackingType
    """`MLflow`, `WandB`, or `TensorBoard` (event files in `tensorboard/` of the artifact)."""
    uri: Annotated[HttpUri, Reach.URI] | None = None
    """The server's address; MLflow needs one, WandB's default is its cloud."""


class Tracking(Tracker):
    """One tracker, and the experiment or project there."""

    project: str


class Rollout(Message):
    """Where completions are drawn."""

    engine: RolloutEngine = RolloutEngine.BUILTIN
    """`Builtin` generates on the training devices. `OpenAI` asks a server with the OpenAI API that
    can load adapters while it runs, such as vLLM."""
    uri: Annotated[HttpUri, Reach.SERVER] | None = None
    """The server's address up to and without `/v1`: a Service in the job's namespace
    (`http://vllm:8000`), or a host that the operator's chart allows."""
    adapter_directory: Annotated[str, Field(max_length=1024, pattern=r"^/[^:]*$")] | None = None
    """A directory that trainer and server share (see workers.volumes): each step's adapter is
    written there for the server to load."""


class RewardRunner(Message):
    """The isolated reward runner of a pod: its socket, and where user code lies.

    Without a socket the pod's launcher starts a runner of its own.
    """

    socket: str | None = None
    # Files with Python source, by the reward's name.
    sources: dict[str, str] | None = None


class Layout(Message):
    """Where and how an attempt runs. None stands for Auto where a field says so."""

    job: JobRef
    attempt: Annotated[int, Field(ge=1)]
    image: str
    output_uri: str
    workers: Annotated[int, Field(ge=1)] = 1
    processes_per_worker: Annotated[int, Field(ge=1)] = 1
    gpus: bool = False  # whether the pods ask for GPUs, so that going on without any is a failure
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None  # Auto
    zero_stage: ZeroStage | None = None  # Auto
    offload: tuple[Offload, ...] = ()
    gradient_checkpointing: Checkpointing = Checkpointing.AUTO
    packing: bool = True
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    tracking: Tracking | None = None
    rollout: Rollout | None = None  # GRPO only; None: Builtin
    reward_runner: RewardRunner | None = None  # GRPO only; None: as without a socket
    credentials: Credentials = Credentials()
    chat_template: str | None = None  # the file of model.chatTemplate.configMap
    cache_dir: str | None = None  # a directory that outlives the pod and is shared by the node
    scratch_dir: str = "/tmp/finetune"  # noqa: S108 - private to the container
    heartbeat: Heartbeat | None = None
    stall_timeout_seconds: Annotated[float, Field(gt=0)] | None = None  # Auto
    grace_seconds: Annotated[float, Field(gt=0)] = 120.0  # from SIGTERM to SIGKILL

    @property
    def world_size(self) -> int:
        """Return the number of training processes."""
        return self.workers * self.processes_per_worker

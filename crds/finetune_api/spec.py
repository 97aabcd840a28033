"""FineTuneJob.spec: the model, the data, how to train and where the adapter goes."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_api.types import (
    ApiModel,
    DecimalString,
    IntOrString,
    Name,
    SecretRef,
    bound,
    rule,
    rules,
)
from finetune_api.workers import GPU, Workers, is_gpu_count
from finetune_contract.runconfig import (
    DataFormat,
    LoraTarget,
    MethodType,
    Precision,
    Schedule,
)

_GPU_LIMIT = f"self.workers.resources.limits['{GPU}']"


class HostPathCache(ApiModel):
    """A directory of the node."""

    path: Annotated[str, Field(min_length=2, max_length=1024, pattern=r"^/[^:]*$")]
    """Absolute path on the node; created if it does not exist. Pod Security `restricted` forbids
    hostPath: prefer a claim where that level is enforced."""


class ClaimCache(ApiModel):
    """A PersistentVolumeClaim in the job's namespace."""

    claim_name: Name
    """Name of the claim; ReadWriteMany if workers run on several nodes."""


class ModelCache(ApiModel):
    """Where downloads of the base model are kept between attempts and jobs."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.persistentVolumeClaim) != has(self.hostPath)",
                "set exactly one of persistentVolumeClaim and hostPath",
            )
        )
    )
    persistent_volume_claim: ClaimCache | None = None
    """Keep the model on a claim."""
    host_path: HostPathCache | None = None
    """Keep the model on the node's disk."""


class Model(ApiModel):
    """The base model."""

    uri: Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file)://[^\s?#]+$")]
    """Where the model directory is: `hf://owner/name`, `s3://bucket/prefix` or `file:///path`, a
    path in the trainer's container (see workers.volumes). Weights must be safetensors."""
    revision: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w./-]+$")] | None = (
        None
    )
    """Commit, tag or branch for hf; the commit it resolves to is recorded in the artifact. Default
    is the main branch."""
    credentials_secret_ref: SecretRef | None = None
    """Credentials for reading the model; none means the pod's own identity or a public model."""
    cache: ModelCache | None = None
    """Download once per node instead of once per pod."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.revision) || self.uri.startsWith('hf://')",
                "revision is for hf:// models only; remove it or use an hf:// uri",
                ".revision",
            )
        )
    )


class TrainingData(ApiModel):
    """One JSONL file of training rows."""

    uri: Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file)://[^\s?#]+$")]
    """`s3://bucket/file.jsonl`, `file:///path/file.jsonl`, or `hf://datasets/owner/name/file.jsonl`."""
    format: DataFormat = DataFormat.AUTO
    """`Messages` rows hold {"messages": [{"role", "content"}, ...]}; `PromptCompletion` rows hold
    {"prompt", "completion"}; `Auto` decides by the file's first row."""


class Data(ApiModel):
    """The data."""

    train: Annotated[
        list[TrainingData],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["uri"],
            },
        ),
    ]
    """Files to train on; their rows are concatenated, then shuffled by training.seed."""
    credentials_secret_ref: SecretRef | None = None
    """Credentials for reading the data."""


class Method(ApiModel):
    """What is optimised."""

    type: MethodType = MethodType.SFT
    """`SFT`: supervised fine-tuning on the assistant's turns."""


class Lora(ApiModel):
    """The adapter: LoRA (arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=8192)] = 32
    """The update is scaled by alpha / rank."""
    dropout: DecimalString = "0"
    """Dropout on the adapter's input, at least 0 and below 1."""
    targets: Annotated[
        list[LoraTarget],
        Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = [LoraTarget.ATTENTION, LoraTarget.MLP]  # noqa: RUF012 - copied by pydantic
    """Which layers get an adapter: `Attention` (q, k, v, o), `MLP` (gate, up, down)."""

    model_config = ConfigDict(
        json_schema_extra=rules(bound("dropout", "< 1.0", "dropout must be below 1"))
    )


class Training(ApiModel):
    """How to optimise."""

    learning_rate: DecimalString = "2e-4"
    """Peak learning rate, as a string such as "2e-4"."""
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passes over the data. Set epochs or maxSteps; with neither it is one epoch."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps, over as many passes as that takes."""
    global_batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Rows per optimizer step over all workers. With fixed data and seed it decides the numbers;
    workers and microBatchSize do not."""
    micro_batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Rows per forward pass of one process; gradients are accumulated up to globalBatchSize."""
    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """The longest row, in tokens; a longer one is refused by file and line before training."""
    precision: Precision = Precision.BF16
    """Number format of the base model; the adapter itself is trained in FP32."""
    schedule: Schedule = Schedule.COSINE
    """Course of the learning rate after warm-up: `Constant`, `Linear` or `Cosine` to zero."""
    warmup_ratio: DecimalString = "0.03"
    """Share of the steps over which the learning rate rises to its peak, 0 to 1."""
    weight_decay: DecimalString = "0"
    """Decoupled weight decay of AdamW."""
    max_grad_norm: DecimalString = "1.0"
    """Clip the gradient to this global norm; "0" does not clip."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of the adapter's initial weights, of the order of rows and of dropout."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            bound("learningRate", "> 0.0", "learningRate must be above 0"),
            rule(
                "!(has(self.epochs) && has(self.maxSteps))",
                "set epochs or maxSteps, not both",
                ".maxSteps",
            ),
            bound("warmupRatio", "<= 1.0", "warmupRatio must be 0 to 1"),
        )
    )


class Memory(ApiModel):
    """How to fit the training into memory."""

    zero_stage: IntOrString = 2
    """DeepSpeed ZeRO: 0 shards nothing, 1 optimizer state, 2 also gradients, 3 also parameters."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.zeroStage) || self.zeroStage in [0, 1, 2, 3]",
                "zeroStage must be 0, 1, 2 or 3",
                ".zeroStage",
            )
        )
    )


class Output(ApiModel):
    """Where the adapter goes."""

    uri: Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(s3|file)://[^\s?#]+$")]
    """A directory of this job alone: `s3://bucket/prefix` or `file:///path`. Readers start from
    `latest.json` in it. The store must honour conditional writes."""
    credentials_secret_ref: SecretRef | None = None
    """Credentials for writing there."""


class RunPolicy(ApiModel):
    """When to run, to retry and to clean up. These fields may change while the job runs."""

    suspend: bool = False
    """Free the pods and wait. Set back to false, the job goes on with a new attempt."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts before the job fails. Ends caused by the infrastructure do not count."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Fail the job when its attempts have taken this long together, waiting for nodes included."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Delete pods and other children this long after the job finished; the job itself stays."""


class FineTuneJobSpec(ApiModel):
    """What to train, on what, how, and where the adapter goes. Once an attempt has started, only
    runPolicy can change."""

    model: Model
    """The base model."""
    data: Data
    """The data."""
    method: Method = Method()
    """What is optimised."""
    lora: Lora = Lora()
    """The adapter."""
    training: Training = Training()
    """How to optimise."""
    memory: Memory = Memory()
    """How to fit the training into memory."""
    workers: Workers = Workers()
    """The pods that train."""
    output: Output
    """Where the adapter goes."""
    run_policy: RunPolicy = RunPolicy()
    """When to run, to retry and to clean up."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.workers.replicas < 1 || self.training.microBatchSize < 1 || "
                "self.training.globalBatchSize % (self.training.microBatchSize * "
                "self.workers.replicas * (has(self.workers.resources) && "
                "has(self.workers.resources.limits) && "
                f"'{GPU}' in self.workers.resources.limits && {is_gpu_count(_GPU_LIMIT)} ? "
                f"int({_GPU_LIMIT}) : 1)) == 0",
                "training.globalBatchSize must be a multiple of microBatchSize x workers.replicas "
                "x GPUs per worker; raise globalBatchSize or change one of the others",
                ".training.globalBatchSize",
            )
        )
    )

"""The recipe: all that decides the artifact. Its digest names a training, whatever the layout.

A default never changes: the digest leaves defaults out. Another one is a new field.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, WithJsonSchema

from finetune_contract.grpo import GrpoRecipe
from finetune_contract.model import Message, Revision, StoreUri, Terse, Uri, sha256_digest


class DataFormat(StrEnum):
    """How a row holds a conversation."""

    AUTO = "Auto"
    MESSAGES = "Messages"
    PROMPT_COMPLETION = "PromptCompletion"


class FileFormat(StrEnum):
    """How a file holds its rows."""

    AUTO = "Auto"
    JSON_LINES = "JSONLines"
    JSON = "JSON"
    PARQUET = "Parquet"
    CSV = "CSV"
    TSV = "TSV"


DatasetName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.-]+$")]


class BadRows(StrEnum):
    """What becomes of a row that can not be trained on."""

    FAIL = "Fail"
    SKIP = "Skip"


class LoraTarget(StrEnum):
    """A role that weight matrices play in a transformer."""

    ATTENTION = "Attention"
    MLP = "MLP"
    EXPERTS = "Experts"
    SHARED_EXPERTS = "SharedExperts"
    ROUTER = "Router"
    EMBEDDINGS = "Embeddings"
    HEAD = "Head"


class Quantization(StrEnum):
    """The number format in which the frozen linear layers are stored."""

    NONE = "None"
    NF4 = "NF4"


class Precision(StrEnum):
    """The number format of the base model's weights and of the forward pass."""

    BF16 = "BF16"
    FP16 = "FP16"
    FP32 = "FP32"


class Schedule(StrEnum):
    """The learning rate's course after warm-up."""

    CONSTANT = "Constant"
    LINEAR = "Linear"
    COSINE = "Cosine"


class Optimizer(StrEnum):
    """The update rule."""

    ADAMW = "AdamW"
    SGD = "SGD"


class MethodType(StrEnum):
    """What is optimised."""

    SFT = "SFT"
    GRPO = "GRPO"


class Publish(StrEnum):
    """Which of the run's adapters is published."""

    LAST = "Last"
    BEST = "Best"


class Export(StrEnum):
    """What is published."""

    ADAPTER = "Adapter"
    MERGED = "Merged"


_LONGEST_SETTING = 4096
TemplateSetting = bool | int | Annotated[str, Field(max_length=_LONGEST_SETTING)]
TemplateSettings = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,62}$")], TemplateSetting],
    Field(min_length=1, max_length=32),
    # A schema of Kubernetes has no types of which a value may be one; pydantic sees to it. Nothing
    # is nested: no parser reads all depths that an API server stores, and lists hold all jobs.
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": 32,
            "additionalProperties": {
                "x-kubernetes-preserve-unknown-fields": True,
                "maxLength": _LONGEST_SETTING,
                "maxItems": 0,
                "maxProperties": 0,
            },
        }
    ),
]


class ConfigMapFile(Message):
    """One file of a ConfigMap."""

    name: str
    key: str


class ChatTemplate(Message):
    """A chat template in place of the model's own: Jinja, as tokenizers of transformers hold it."""

    inline: Annotated[str, Field(min_length=1, max_length=131_072)] | None = None
    """The template itself."""
    config_map: ConfigMapFile | None = None
    """A key of a ConfigMap in the job's namespace."""
    uri: StoreUri | None = None
    """A file, at most 128 KiB: `s3://bucket/template.jinja` or `file:///path/template.jinja`."""


class ModelRecipe(Message):
    """The base model, and the published adapter to go on from, if any."""

    uri: Uri
    """Where the model directory is: `hf://owner/name`, `s3://bucket/prefix` or `file:///path`, a
    path in the trainer's container (see workers.volumes). Weights must be safetensors."""
    revision: Revision | None = None
    """Commit, tag or branch for hf; the commit it resolves to is recorded in the artifact. Default
    is the main branch."""
    init_from: StoreUri | None = None
    """Go on from a published adapter instead of a new one: the output.uri of another job, or the
    directory of one of its artifacts. Base model, rank and targets must be equal; manifest and
    files are verified first."""
    chat_template: ChatTemplate | None = None
    """A chat template in place of the model's own. It is published with the adapter."""
    chat_template_kwargs: TemplateSettings | None = None
    """What the chat template is to know beside messages, such as `enable_thinking: false`: by name
    text, a whole number, true or false. The published template has them as defaults."""


class DataSource(Message):
    """One file of rows."""

    uri: Uri
    """`s3://bucket/file.jsonl`, `file:///path/file.parquet`, `hf://datasets/owner/name[/file.csv]`.
    A directory (`s3://bucket/rows/`) or a pattern (`rows/*.parquet`, `**/*.csv`): all its files."""
    format: DataFormat = DataFormat.AUTO
    """`Messages` rows hold {"messages": [{"role", "content"}, ...]}; `PromptCompletion` rows hold
    {"prompt", "completion"}; `Auto` decides by the file's first row."""
    file_format: FileFormat = FileFormat.AUTO
    """How the file holds its rows: `JSONLines`, `JSON` (one array of objects), `Parquet`, `CSV` or
    `TSV` with a header; `Auto` decides by the file's first bytes, and for CSV and TSV by its name.
    Each but Parquet may be packed with gzip or Zstandard."""
    config: DatasetName | None = None
    """For hf://datasets/OWNER/NAME: the configuration of the data set. Default is its own."""
    split: DatasetName | None = None
    """For hf://datasets: the split, `train` unless said otherwise."""


class TrainingSource(DataSource):
    """One file of training rows."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share of the file's rows in one epoch: "1" takes every row once, "2" twice, "0.5" another
    half of them in each epoch."""


ColumnName = Annotated[str, Field(min_length=1, max_length=128)]


class Columns(Message):
    """Which column of a row is what, where its name does not tell. Every row must have the columns
    that are named here; one may be null where the field may be left out."""

    messages: ColumnName | None = None
    """The list of turns."""
    role: ColumnName | None = None
    """Of a turn: who speaks."""
    content: ColumnName | None = None
    """Of a turn: what is said."""
    prompt: ColumnName | None = None
    """What is asked."""
    input: ColumnName | None = None
    """What the prompt is about: put after it, on a line of its own."""
    completion: ColumnName | None = None
    """What is learned: the answer."""
    reasoning: ColumnName | None = None
    """The reasoning before the answer."""
    system: ColumnName | None = None
    """The system's turn."""
    history: ColumnName | None = None
    """Turns before the prompt, as pairs of texts or as messages."""
    tools: ColumnName | None = None
    """The tools that may be called."""


class DataRecipe(Message):
    """The rows to train and to evaluate on."""

    train: Annotated[tuple[TrainingSource, ...], Field(min_length=1)]
    eval: tuple[DataSource, ...] = ()
    on_bad_row: BadRows = BadRows.FAIL
    columns: Columns | None = None

    @property
    def mapped(self) -> dict[str, str]:
        """Return the columns by what they are."""
        return {} if self.columns is None else self.columns.model_dump(exclude_none=True)


class LoraRecipe(Message):
    """The adapter: LoRA (arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=8192)] = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0)] = 0.0
    """Dropout on the adapter's input, at least 0 and below 1. Above 0 the numbers depend on
    workers, microBatchSize and packing too: each process and forward pass draws its own. Dropout of
    the base model itself is always off."""
    targets: Annotated[tuple[LoraTarget, ...], Field(min_length=1, max_length=8)] = (
        LoraTarget.ATTENTION,
        LoraTarget.MLP,
    )
    """Which weights get an adapter, by the role they play: `Attention` (q, k, v, o, or MLA's
    projections), `MLP` (dense gate, up, down), `Experts` (the routed experts of a mixture),
    `SharedExperts`, `Router`, `Embeddings`, `Head`. A role that the model does not have is refused
    before any weights are downloaded."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps high ranks stable (arXiv 2312.03732)."""
    dora: bool = False
    """Train magnitude and direction apart (arXiv 2402.09353); slower."""
    quantization: Quantization = Quantization.NONE
    """`NF4` stores the frozen linear layers in 4 bits (QLoRA, arXiv 2305.14314); experts fused into
    one tensor stay in training.precision."""


class TrainingTerms(Message):
    """How to optimise.

    Where the API spells a default otherwise than `%g` would, the field says how.
    """

    learning_rate: Annotated[float, Field(ge=0, json_schema_extra={"default": "2e-4"})] = 2e-4
    """Peak learning rate, as a string such as "2e-4"."""
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passes over the data. Set epochs or maxSteps; with neither it is one epoch."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps, over as many passes as that takes."""
    global_batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Rows per optimizer step over all workers. With fixed data and seed it decides the numbers;
    workers and microBatchSize do not, unless lora.dropout is above 0."""
    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """The longest row, in tokens; a longer one is refused by file and line before training. It also
    chooses LongRoPE's factors, and may not exceed a model's table of positions."""
    precision: Precision = Precision.BF16
    """Number format of the base model; the adapter itself is trained in FP32. FP16 (with a dynamic
    loss scale) is for GPUs without BF16."""
    schedule: Schedule = Schedule.COSINE
    """Course of the learning rate after warm-up: `Constant`, `Linear` or `Cosine` to zero."""
    warmup_ratio: Annotated[float, Field(ge=0)] = 0.03
    """Share of the steps over which the learning rate rises to its peak, 0 to 1."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(ge=0, json_schema_extra={"default": "1.0"})] = 1.0
    """Clip the gradient to this global norm; "0" does not clip."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of the adapter's initial weights, of the order of rows and of dropout."""
    deterministic: bool = False
    """Use deterministic kernels only, so that equal runs on equal machines are equal to the bit.
    Slower on GPUs; an operation that has no such kernel ends the job with DeviceUnsupported and is
    named."""


class TrainingRecipe(TrainingTerms):
    """How to optimise, with the update rule.

    No job asks for SGD: it is the stricter oracle. AdamW divides a gradient by its own size, and so
    hides one that is wrong by a constant factor; SGD shows it.
    """

    optimizer: Optimizer = Optimizer.ADAMW


class EvalRecipe(Message):
    """How to evaluate on data.eval: the mean loss over all its supervised tokens."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Evaluate each time this many optimizer steps are done; always also after the last."""
    publish: Publish = Publish.LAST
    """`Last` publishes the adapter of the last step, `Best` that of the lowest eval loss."""
    patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Stop early after this many evaluations in a row without a lower loss. None never does."""


class Recipe(Terse):
    """What decides the artifact. Rules between its fields stand beside the job's, as CEL."""

    model: ModelRecipe
    data: DataRecipe
    method: MethodType = MethodType.SFT
    grpo: GrpoRecipe | None = None  # for the method GRPO, and only for it
    lora: LoraRecipe = LoraRecipe()
    training: TrainingRecipe = TrainingRecipe()
    eval: EvalRecipe = EvalRecipe()
    export: Annotated[tuple[Export, ...], Field(min_length=1)] = (Export.ADAPTER,)

    def digest(self) -> str:
        """Return `sha256:<hex>` of the canonical JSON; a default has no part in it."""
        return sha256_digest(self.to_json().encode())

"""The memory formula: what one process needs on its device at its peak, from shapes alone.

The micro-batch is full, every row of it `sequence_length` tokens long and learned. Of the logits
counts what they need, at the turn from forward to backward, beyond what the layers' backward passes
need after them. docs/memory.md says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.layout import Offload, ZeroStage
from finetune_contract.recipe import Optimizer, Precision, Quantization
from finetune_contract.resolved import MemoryEstimate
from finetune_trainer.memory.shape import AdapterShape, ModelShape

MIB = 2**20
LOGITS_BYTES = 256 * MIB  # of the fp32 logits that exist at a time
READ_TOKENS = 8192  # of prompts that rollouts read in one forward pass, if none is longer
ROLLOUT_SHARE = 0.5  # of free memory: merged weights take at most so much, then keys and values
SCORE_BLOCK = 1024  # queries whose attention scores exist at a time, where they must
BUCKET_ELEMENTS = 50_000_000  # of gradients reduced at a time
LIVE_ELEMENTS = 100_000_000  # of parameters that ZeRO-3 keeps whole beyond the layer at work
NF4_BYTES = 0.5 + 4 / 64  # an element, and its share of a block's fp32 scale
GPU_CONTEXT = 700 * MIB  # the driver's and the kernel libraries' own
COMMUNICATION = 1024 * MIB  # NCCL's buffers
HOST_PROCESS = 900 * MIB  # Python and the libraries
FP32, HALF = 4, 2


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a job's memory depends on, whatever of the rest is left to the trainer."""

    precision: Precision
    quantization: Quantization
    optimizer: Optimizer
    sequence_length: int
    offload: tuple[Offload, ...]
    on_gpu: bool
    processes: int = 1  # that share a host
    merges: bool = False  # the whole base into a merged model at the end
    keeps_best: bool = False  # the weights of the lowest eval loss, beside those that train
    reward_models: int = 0  # bytes that they hold on the device


@dataclass(frozen=True, kw_only=True)
class Setting(Demand):
    """All of a job that decides its memory. `world` is the number of processes."""

    micro_batch_size: int
    world: int
    stage: ZeroStage
    checkpointing: bool
    prompt_tokens: int = 0  # that the built-in rollout engine reads at once; 0: it is not used

    @property
    def element(self) -> int:
        """Return the bytes of an activation."""
        return FP32 if self.precision is Precision.FP32 else HALF

    @property
    def tokens(self) -> int:
        """Return the tokens of a full micro-batch."""
        return self.micro_batch_size * self.sequence_length

    def sharded(self, from_stage: ZeroStage) -> int:
        """Return among how many processes ZeRO divides what it shards from a stage on."""
        return self.world if self.stage >= from_stage else 1


def estimate(
    model: ModelShape, adapter: AdapterShape, setting: Setting, available: int | None = None
) -> MemoryEstimate:
    """Return the parts of the peak; `available` bytes are passed on."""
    on_host = Offload.OPTIMIZER in setting.offload
    trained = FP32 * adapter.parameters
    master = 0 if setting.stage is ZeroStage.DDP or on_host else trained
    kept, work = _kept(model, adapter, setting)
    moments = 0 if on_host or setting.optimizer is Optimizer.SGD else 2 * trained
    return MemoryEstimate(
        weights=_weights(model, setting),
        adapter=trained // setting.sharded(ZeroStage.PARAMETERS),
        gradients=trained // setting.sharded(ZeroStage.GRADIENTS),
        optimizer=(master + moments) // setting.sharded(ZeroStage.OPTIMIZER),
        activations=max(kept + work, _rollouts(model, adapter, setting)),
        logits=max(0, _logits(model, setting) - work),
        overhead=_overhead(model, adapter, setting),
        available=available,
    )


def host_bytes(model: ModelShape, adapter: AdapterShape, setting: Setting) -> int:
    """Return what one process keeps in the host's memory for its device."""
    size = 0
    if Offload.OPTIMIZER in setting.offload:
        copies = 2 if setting.optimizer is Optimizer.SGD else 4  # weights, gradients, moments
        size += copies * FP32 * adapter.parameters // setting.sharded(ZeroStage.OPTIMIZER)
    if Offload.PARAMETERS in setting.offload:
        size += setting.element * model.elements // setting.sharded(ZeroStage.PARAMETERS)
    return size


def snapshot_bytes(adapter: AdapterShape, setting: Setting) -> int:
    """Return what rank 0 keeps in the host's memory while a checkpoint is written: whole, fp32."""
    kinds = 1 if setting.optimizer is Optimizer.SGD else 3  # weights, moments
    return FP32 * (kinds + setting.keeps_best) * adapter.parameters


def saving_fits(model: ModelShape, adapter: AdapterShape, setting: Setting, host: float) -> bool:
    """Tell whether rank 0 can save, with `host` bytes of memory for each process beside it.

    Every process goes on training meanwhile.
    """
    held = host_bytes(model, adapter, setting)
    if not setting.on_gpu:
        held += estimate(model, adapter, setting).total
    return snapshot_bytes(adapter, setting) + setting.processes * held <= setting.processes * host


def merging_fits(model: ModelShape, adapter: AdapterShape, setting: Setting, host: float) -> bool:
    """Tell whether rank 0 can merge, with `host` bytes of memory for each process beside it.

    It holds the base in the format it is stored in, while every process keeps what it trained.
    """
    if not setting.merges:
        return True
    held = host_bytes(model, adapter, setting)
    if not setting.on_gpu:
        parts = estimate(model, adapter, setting)
        held += parts.weights + parts.adapter + parts.gradients + parts.optimizer + parts.overhead
    return model.stored + setting.processes * held <= setting.processes * host


def _weights(model: ModelShape, setting: Setting) -> int:
    """Return the bytes of the frozen weights.

    What is quantised while it is loaded is whole on each device at first: ZeRO-3 shards and
    offloads it only then.
    """
    if setting.quantization is Quantization.NF4:
        rest = model.elements - model.quantisable
        return rest * setting.element + round(model.quantisable * NF4_BYTES)
    if Offload.PARAMETERS in setting.offload:
        return 0
    return model.elements * setting.element // setting.sharded(ZeroStage.PARAMETERS)


def _kept(model: ModelShape, adapter: AdapterShape, setting: Setting) -> tuple[int, int]:
    """Return the bytes that the forward pass keeps, and those of the layer at work in backward."""
    size, tokens, sparse = setting.element, setting.tokens, model.moe_layers
    dense, moe = _layers(model, adapter, setting)
    folded = size * adapter.folded
    kept = (model.layers - sparse) * dense + sparse * moe + FP32 * adapter.inputs
    # Gradients of the widest part of a layer, some of them fp32.
    widest = max(model.dense if dense else 0, model.experts + model.shared)
    work = (FP32 + size) * (widest + model.routes * model.hidden + model.hidden)
    if setting.checkpointing:
        work += max(dense, moe) + FP32 * adapter.inputs // model.layers
        kept = model.layers * size * model.hidden
        folded //= max(1, sparse)
    ends = (FP32 + 2 * size) * model.hidden
    update = (size + FP32) * adapter.folded // max(1, sparse)
    return tokens * (kept + ends) + folded, tokens * work + update + _scores(model, setting)


def _layers(model: ModelShape, adapter: AdapterShape, setting: Setting) -> tuple[int, int]:
    """Return the bytes a token of a layer without experts, and of one with; 0: there is none."""
    size, sparse = setting.element, model.moe_layers
    attention = FP32 * model.normed + size * (
        model.queries + model.keys + model.values + model.outputs
    )
    dense = attention + size * 3 * model.dense if sparse < model.layers else 0
    moe = size * (3 * (model.experts + model.shared) + model.routes * model.hidden)
    if adapter.folded:  # a weight's gradient needs its input
        moe += size * (model.routes * model.hidden + model.experts)
    return dense, attention + moe if sparse else 0


def _rollouts(model: ModelShape, adapter: AdapterShape, setting: Setting) -> int:
    """Return what must be free to draw completions, one at a time if need be.

    Whatever merged weights take of it, and then keys and values, a layer's forward pass over
    prompts must have room, and so must a full row's keys and values beside it.
    """
    if not setting.prompt_tokens:
        return 0
    size = setting.element
    kept = size * model.layers * (model.keys + model.values) * setting.sequence_length
    token = max(_layers(model, adapter, setting)) + (FP32 + 2 * size) * model.hidden
    read = setting.prompt_tokens * token + _scores(model, setting)
    rest = 1 - ROLLOUT_SHARE
    return round(max(read / rest, kept + read) / rest)


def _scores(model: ModelShape, setting: Setting) -> int:
    """Return the bytes of attention scores where a soft cap keeps fused kernels out."""
    length = setting.sequence_length
    return 2 * FP32 * model.softcapped_heads * min(SCORE_BLOCK, length) * length


def _logits(model: ModelShape, setting: Setting) -> int:
    """Return the bytes of a chunk's logits, their log-softmax and its gradient.

    Where they exist whole: as the model makes them, as they are picked out, in fp32, and those two.
    """
    if model.whole_logits:
        copies = 2 if setting.element == FP32 else 3
        return setting.tokens * model.vocabulary * (2 * setting.element + copies * FP32)
    chunk = max(1, min(setting.tokens, LOGITS_BYTES // (FP32 * model.vocabulary)))
    return chunk * model.vocabulary * 3 * FP32


def _overhead(model: ModelShape, adapter: AdapterShape, setting: Setting) -> int:
    """Return the process's own, reward models, communication's buffers, ZeRO-3's whole weights."""
    size = setting.reward_models + (GPU_CONTEXT if setting.on_gpu else HOST_PROCESS)
    if setting.world > 1:
        size += COMMUNICATION if setting.on_gpu else 0
        size += FP32 * min(adapter.parameters, BUCKET_ELEMENTS)
    if setting.stage is ZeroStage.PARAMETERS:
        live = min(model.elements, model.largest + LIVE_ELEMENTS)
        size += setting.element * live
    return size

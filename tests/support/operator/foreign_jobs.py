"""Job files as users of other tools write them, and what each is to be told."""

from __future__ import annotations

HEAD = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: job}
spec:
"""
MODEL = "  model: {uri: hf://org/model}\n"
DATA = "  data: {train: [{uri: s3://bucket/train.jsonl}]}\n"
OUTPUT = "  output: {uri: s3://bucket/out}\n"
PLAIN = HEAD + MODEL + DATA + OUTPUT


def _lora(text: str) -> str:
    return f"{PLAIN}  lora: {text}\n"


def _training(text: str) -> str:
    return f"{PLAIN}  training: {text}\n"


def _grpo(text: str, rewards: str = "[{name: a, math: {}}]") -> str:
    return f"{PLAIN}  method:\n    type: GRPO\n    grpo: {{rewards: {rewards}, {text}}}\n"


# What is written -> each line that must be told: where it stands, and how it begins and ends.
FOREIGN: list[tuple[str, list[tuple[str, str, str]]]] = [
    (
        _lora("{r: 16, lora_alpha: 32, target_modules: [q_proj]}"),
        [
            ("8:10", "spec.lora.r: unknown field", "write spec.lora.rank"),
            ("8:17", "spec.lora.lora_alpha: unknown field", "write spec.lora.alpha"),
            ("8:33", "spec.lora.target_modules: unknown field", "such as [Attention, MLP]"),
        ],
    ),
    (_lora("{targets: [q_proj]}"), [("8:20", "spec.lora.targets[0]", "write Attention")]),
    (_lora("{targets: [up_proj]}"), [("8:20", "spec.lora.targets[0]", "write MLP")]),
    (_lora("{targets: [lm_head]}"), [("8:20", "spec.lora.targets[0]", "write Head")]),
    (_lora("{targets: all-linear}"), [("8:10", "spec.lora.targets", "[Attention, MLP]")]),
    (_lora("{targets: [mlp]}"), [("8:20", "spec.lora.targets[0]", "write MLP")]),
    (_lora("{dropout: 0.05}"), [("8:10", "spec.lora.dropout", 'write "0.05", in quotes')]),
    (_lora("{load_in_4bit: true}"), [("8:10", "spec.lora.load_in_4bit", "quantization: NF4")]),
    (_lora("{rank: '16'}"), [("8:10", "spec.lora.rank", "write 16, without quotes")]),
    (_lora("{rank: 16.5}"), [("8:10", "spec.lora.rank", "write a whole number")]),
    (
        PLAIN.replace("/model}", "/model, chatTemplateKwargs: {tools: [search]}}"),
        [("5:53", "spec.model.chatTemplateKwargs.tools: Too many", "number, true or false")],
    ),
    (_lora("{use_rslora: true}"), [("8:10", "spec.lora.use_rslora", "write spec.lora.rslora")]),
    (
        _training("{learningRate: 2e-4, num_train_epochs: 3, max_steps: -1}"),
        [
            ("8:14", "spec.training.learningRate", 'write "2e-4", in quotes'),
            ("8:34", "spec.training.num_train_epochs", "write spec.training.epochs"),
            ("8:55", "spec.training.max_steps", "write maxSteps"),
        ],
    ),
    (_training("{learning_rate: 1e-5}"), [("8:14", "spec.training.learning_rate", "learningRate")]),
    (
        _training("{per_device_train_batch_size: 4, gradient_accumulation_steps: 8}"),
        [
            ("8:14", "spec.training.per_device_train_batch_size", "spec.training.microBatchSize"),
            ("8:46", "spec.training.gradient_accumulation_steps", "a step over all workers"),
        ],
    ),
    (_training("{bf16: true}"), [("8:14", "spec.training.bf16", "write spec.training.precision")]),
    (_training("{precision: bfloat16}"), [("8:14", "spec.training.precision", "write BF16")]),
    (_training("{schedule: cosine}"), [("8:14", "spec.training.schedule", "write Cosine")]),
    (
        _training("{schedule: constant_with_warmup}"),
        [("8:14", "spec.training.schedule", "write Constant")],
    ),
    (_training("{packing: 'true'}"), [("8:14", "spec.training.packing", "true, without quotes")]),
    (
        _training("{gradient_checkpointing: true}"),
        [("8:14", "spec.training.gradient_checkpointing", "spec.memory.gradientCheckpointing")],
    ),
    (_training("{globalBatchSise: 8}"), [("8:14", "spec.training", "mean globalBatchSize?")]),
    (_training("{save_steps: 8}"), [("8:14", "spec.training", "spec.checkpoint.everySteps")]),
    (
        _grpo("num_generations: 8, epsilon_high: 0.28, beta: 0.04"),
        [
            ("10:44", "spec.method.grpo.num_generations", "write spec.method.grpo.groupSize"),
            ("10:64", "spec.method.grpo.epsilon_high", "write spec.method.grpo.clipHigh"),
            ("10:84", "spec.method.grpo.beta", 'write "0.04", in quotes'),
        ],
    ),
    (
        _grpo("rollout: {max_completion_length: 512, temperature: 0.7}"),
        [
            ("10:54", "spec.method.grpo.rollout.max_completion_length", "rollout.maxTokens"),
            ("10:82", "spec.method.grpo.rollout.temperature", 'write "0.7", in quotes'),
        ],
    ),
    (
        _grpo("loss: dr_grpo", "[{name: a, maths: {}}]"),
        [
            ("10:32", "spec.method.grpo.rewards[0].maths: unknown field", "did you mean math?"),
            ("10:45", "spec.method.grpo.loss", "write DrGRPO"),
        ],
    ),
    (f"{PLAIN}  method: GRPO\n", [("8:3", "spec.method", "write {type: GRPO}")]),
    (f"{PLAIN}  method: {{type: sft}}\n", [("8:12", "spec.method.type", "write SFT")]),
    (
        HEAD + "  model: org/model\n  data: {train: s3://bucket/train.jsonl}\n  output: s3://b/o\n",
        [
            ("5:3", "spec.model", 'write {uri: "hf://org/model"}'),
            ("6:10", "spec.data.train", 'write a list: [{uri: "s3://bucket/train.jsonl"}]'),
            ("7:3", "spec.output", 'write {uri: "s3://b/o"}'),
        ],
    ),
    (
        HEAD + MODEL + "  dataset: org/data\n  output_dir: ./out\n",
        [
            ("4:1", "spec.data: Required value", "[{uri: s3://BUCKET/train.jsonl}]}"),
            ("4:1", "spec.output: Required value", "write {uri: s3://BUCKET/NAME}"),
            ("6:3", "spec.dataset: unknown field", "[{uri: s3://BUCKET/train.jsonl}]"),
            ("7:3", "spec.output_dir: unknown field", '"s3://BUCKET/NAME"'),
        ],
    ),
    (
        "base_model: org/model\nadapter: lora\nmicro_batch_size: 2\nsequence_len: 4096\n",
        [
            ("1:1", "apiVersion", "must be finetune.dev/v1alpha1"),
            ("1:1", "base_model: unknown field", '"hf://OWNER/NAME"'),
            ("2:1", "adapter: unknown field", "every job trains a LoRA adapter"),
            ("3:1", "micro_batch_size: unknown field", "write spec.training.microBatchSize"),
            ("4:1", "sequence_len: unknown field", "write spec.training.sequenceLength"),
        ],
    ),
    (
        "model_name_or_path: org/model\nstage: sft\nfinetuning_type: lora\ncutoff_len: 2048\n",
        [
            ("1:1", "model_name_or_path: unknown field", '"hf://OWNER/NAME"'),
            ("2:1", "stage: unknown field", "spec.method.type: SFT or GRPO"),
            ("3:1", "finetuning_type: unknown field", "every job trains a LoRA adapter"),
            ("4:1", "cutoff_len: unknown field", "write spec.training.sequenceLength"),
        ],
    ),
    (
        f"{PLAIN}  workers: {{num_gpus: 8, resources: {{limits: {{gpus: 1}}}}}}\n",
        [("8:13", "spec.workers.num_gpus", '{"nvidia.com/gpu": N}')],
    ),
    (
        f"{PLAIN}  deepspeed: ds.json\n  report_to: wandb\n  trust_remote_code: true\n  foo: 1\n",
        [
            ("8:3", "spec.deepspeed", "write spec.memory.zeroStage"),
            ("9:3", "spec.report_to", "write spec.tracking"),
            ("10:3", "spec.trust_remote_code", "code of repositories is never run"),
            ("11:3", "spec.foo: unknown field", "checkpoint, tracking, output, runPolicy"),
        ],
    ),
]

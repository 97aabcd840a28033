"""Names that other tools have for what a job says: the one table of them.

TRL's, PEFT's, Axolotl's and LLaMA-Factory's, and those of Hugging Face's TrainingArguments. Names
are compared without case, `_` and `-`.
"""

from __future__ import annotations

_GRPO = "spec.method.grpo"
_TRAINING = "spec.training"

# What another tool calls it -> the field here, and, after a space, what to write into it.
_FIELDS = {
    # the base model
    "base_model model_name_or_path model_name model_id pretrained_model_name_or_path": (
        'spec.model.uri, such as "hf://OWNER/NAME"'
    ),
    "model_revision revision_of_model": "spec.model.revision",
    "adapter_name_or_path lora_model_dir resume_from_adapter": "spec.model.initFrom",
    "trust_remote_code": "; code of repositories is never run",
    "hf_token token use_auth_token hf_hub_token": (
        "spec.model.credentialsSecretRef, a Secret with the key HF_TOKEN"
    ),
    "tokenizer tokenizer_name tokenizer_type tokenizer_name_or_path": (
        "; the tokenizer is that of spec.model.uri"
    ),
    # the data
    "dataset datasets dataset_name train_file train_dataset dataset_path data_files dataset_dir": (
        "spec.data.train, a list such as [{uri: s3://BUCKET/train.jsonl}]"
    ),
    "eval_dataset eval_file test_datasets validation_file eval_datasets val_set_size": (
        "spec.data.eval, a list such as [{uri: s3://BUCKET/eval.jsonl}]"
    ),
    "cutoff_len max_seq_length max_seq_len max_length sequence_len model_max_length": (
        f"{_TRAINING}.sequenceLength"
    ),
    "sample_packing pack neat_packing": f"{_TRAINING}.packing",
    "train_on_inputs train_on_prompt assistant_only_loss completion_only_loss": (
        "; the assistant's turns are learned, others never"
    ),
    # the adapter
    "target_modules lora_target lora_target_modules modules_to_save lora_target_linear": (
        "spec.lora.targets, roles such as [Attention, MLP]"
    ),
    "lora_r r lora_rank lora_dim": "spec.lora.rank",
    "lora_alpha": "spec.lora.alpha",
    "lora_dropout": 'spec.lora.dropout, such as "0.05"',
    "use_rslora": "spec.lora.rslora",
    "use_dora peft_use_dora": "spec.lora.dora",
    "load_in_4bit quantization_bit load_in_8bit bnb_4bit_quant_type bnb_config qlora": (
        "spec.lora.quantization: NF4"
    ),
    "adapter finetuning_type peft peft_config peft_type use_peft lora_config task_type bias": (
        "spec.lora; every job trains a LoRA adapter"
    ),
    # the training
    "learning_rate lr": f'{_TRAINING}.learningRate, such as "2e-4"',
    "num_train_epochs num_epochs n_epochs": f"{_TRAINING}.epochs",
    "max_steps num_steps total_steps": f"{_TRAINING}.maxSteps",
    "per_device_train_batch_size micro_batch_size train_batch_size_per_device": (
        f"{_TRAINING}.microBatchSize"
    ),
    "batch_size train_batch_size total_batch_size effective_batch_size": (
        f"{_TRAINING}.globalBatchSize"
    ),
    "gradient_accumulation_steps grad_accum": (
        f"{_TRAINING}.globalBatchSize, the rows of a step over all workers"
    ),
    "lr_scheduler_type lr_scheduler scheduler": f"{_TRAINING}.schedule",
    "warmup_ratio warmup_steps": f'{_TRAINING}.warmupRatio, a share of the steps such as "0.03"',
    "weight_decay": f"{_TRAINING}.weightDecay",
    "max_grad_norm gradient_clipping gradient_clip_val": f"{_TRAINING}.maxGradNorm",
    "bf16 fp16 tf32 torch_dtype dtype compute_type mixed_precision": f"{_TRAINING}.precision",
    "optim optimizer adam_beta1 adam_beta2 adam_epsilon": "; the optimizer is AdamW",
    "gradient_checkpointing use_gradient_checkpointing activation_checkpointing": (
        "spec.memory.gradientCheckpointing"
    ),
    "deepspeed deepspeed_config zero_stage fsdp fsdp_config accelerate_config": (
        "spec.memory.zeroStage"
    ),
    "flash_attention flash_attn attn_implementation use_liger_kernel": (
        "; the attention is chosen by the device"
    ),
    "random_seed data_seed": f"{_TRAINING}.seed",
    "eval_steps eval_strategy evaluation_strategy evals_per_epoch": "spec.eval.everySteps",
    "early_stopping_patience": "spec.eval.patience",
    "load_best_model_at_end metric_for_best_model": "spec.eval.publish: Best",
    "save_steps save_strategy saves_per_epoch": "spec.checkpoint.everySteps",
    "save_total_limit": "spec.checkpoint.keep",
    "output_dir hub_model_id push_to_hub output_path": (
        'spec.output.uri, such as "s3://BUCKET/NAME"'
    ),
    "report_to wandb_project wandb_entity mlflow_experiment_name run_name wandb": "spec.tracking",
    "logging_steps logging_dir logging_strategy": "; every step is logged",
    "resume_from_checkpoint auto_resume_from_checkpoints": "; an attempt goes on by itself",
    "num_gpus nproc_per_node gpus": 'spec.workers.resources.limits: {"nvidia.com/gpu": N}',
    "num_nodes nnodes num_workers": "spec.workers.replicas",
    # methods and GRPO
    "stage rl training_type trainer_type do_train": "spec.method.type: SFT or GRPO",
    "num_generations group_size": f"{_GRPO}.groupSize",
    "max_completion_length max_new_tokens max_tokens": f"{_GRPO}.rollout.maxTokens",
    "max_prompt_length": f"{_TRAINING}.sequenceLength, of prompt and completion together",
    "reward_funcs reward_functions reward_weights reward_model reward_processing_classes": (
        f"{_GRPO}.rewards"
    ),
    "loss_type": f"{_GRPO}.loss",
    "epsilon cliprange": f"{_GRPO}.clipLow",
    "epsilon_high cliprange_high": f"{_GRPO}.clipHigh",
    "kl_coef init_kl_coef kl_beta": f"{_GRPO}.beta",
    "num_iterations ppo_epochs": f"{_GRPO}.iterations",
    "mask_truncated_completions": f"{_GRPO}.maskTruncated",
    "use_vllm vllm_mode vllm_server_host vllm_server_base_url": (
        f"{_GRPO}.rollout: {{engine: OpenAI, uri: ...}}"
    ),
    "chat_template template": "; the template is that of the model's tokenizer",
    # Kubernetes
    "gpu nvidia.com/gpu cpu memory": "spec.workers.resources.limits",
    "node_selector": "spec.workers.nodeSelector",
    "image_pull_policy": "; the operator's chart decides it",
    "env environment": "; a job has no environment of its own",
}

# What another tool writes -> what is written here.
_VALUES = {
    "q_proj k_proj v_proj o_proj qkv_proj c_attn query key value query_key_value wq wk wv wo": (
        "Attention"
    ),
    "gate_proj up_proj down_proj gate_up_proj fc1 fc2 c_fc c_proj w1 w2 w3": "MLP",
    "all-linear all all_linear": "Attention, MLP",
    "embed_tokens wte": "Embeddings",
    "lm_head": "Head",
    "bfloat16 torch.bfloat16": "BF16",
    "float16 half torch.float16": "FP16",
    "float32 float torch.float32": "FP32",
    "constant_with_warmup": "Constant",
    "cosine_with_restarts cosine_with_min_lr": "Cosine",
    "dr_grpo": "DrGRPO",
    "bnb 4bit int4": "NF4",
    "json jsonl sharegpt alpaca chat": "Auto",
    "rlhf ppo rloo": "GRPO",
}


def plain(name: str) -> str:
    """Return a name without what tools spell differently."""
    return name.lower().replace("_", "").replace("-", "").replace(".", "")


def _table(entries: dict[str, str]) -> dict[str, str]:
    return {plain(name): here for names, here in entries.items() for name in names.split()}


FIELDS = _table(_FIELDS)
VALUES = _table(_VALUES)

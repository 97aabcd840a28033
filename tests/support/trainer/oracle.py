"""Training as it is written down, to judge the trainer by: plain torch, one row after the other.

No DeepSpeed, no packing and no padding, and the model's own forward pass and attention. Only the
order of the rows and the first adapter are the trainer's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from finetune_contract.recipe import Optimizer, TrainingRecipe
from finetune_contract.runconfig import RunConfig


@dataclass(frozen=True)
class Expected:
    """Per step the loss and the gradient norm before clipping; the final adapter by name."""

    losses: list[float]
    norms: list[float]
    adapter: dict[str, Any]


@dataclass(frozen=True)
class TokenRow:
    """A row's tokens, of which those from `prompt` on are learned."""

    tokens: list[int]
    prompt: int


def adapted_model(config: RunConfig) -> Any:
    """Return the PEFT model that every run of the recipe begins with."""
    from finetune_trainer.adapter.load import load_adapted

    return load_adapted(config.recipe, path_of(config.recipe.model.uri)).model.train()


def path_of(uri: str) -> Path:
    """Return the path of a file:// URI."""
    return Path(unquote(urlsplit(uri).path))


def steps_of(config: RunConfig) -> Iterator[list[TokenRow]]:
    """Yield the rows of each optimizer step; dialogues of one question and one answer, ChatML."""
    from transformers import AutoTokenizer

    from finetune_trainer.batch.batches import BatchOrder
    from finetune_trainer.data.dataset import Source

    training = config.recipe.training
    tokenizer = AutoTokenizer.from_pretrained(path_of(config.recipe.model.uri))
    data = path_of(config.recipe.data.train[0].uri)
    rows = [json.loads(line)["messages"] for line in data.open()]
    size = training.global_batch_size
    count = math.ceil(len(rows) / size)
    order = BatchOrder((Source(len(rows), 1.0),), size, training.seed, count, len(rows))
    for step in range(count):
        batch = []
        for index in order.batch(step):
            question, answer = (turn["content"] for turn in rows[index])
            head = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            prompt = tokenizer(head)["input_ids"]
            answer = tokenizer(f"{answer}<|im_end|>")["input_ids"]
            batch.append(TokenRow([*prompt, *answer], len(prompt)))
        yield batch


def plain_torch(config: RunConfig) -> Expected:
    """Train on the CPU in fp32."""
    import torch

    model = adapted_model(config)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    training = config.recipe.training
    optimizer = optimizer_of(training, list(parameters.values()))
    limit = training.max_grad_norm or math.inf
    losses, norms = [], []
    for batch in steps_of(config):
        summed, count = torch.zeros(()), 0
        for row in batch:
            ids = torch.tensor(row.tokens)
            log_probs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            picked = log_probs[row.prompt - 1 : -1].gather(1, ids[row.prompt :, None])
            summed, count = summed - picked.sum(), count + len(picked)
        optimizer.zero_grad()
        (summed / count).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), limit)))
        optimizer.step()
        losses.append(summed.item() / count)
    return Expected(losses, norms, {n: p.detach() for n, p in parameters.items()})


def trl_losses(config: RunConfig, directory: Path) -> list[float]:
    """Return the losses that TRL's SFTTrainer reports, a step each, on the same batches."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTTrainer

    training = config.recipe.training
    rows = [
        {
            "input_ids": row.tokens,
            "labels": [-100] * row.prompt + row.tokens[row.prompt :],
        }
        for batch in steps_of(config)
        for row in batch
    ]
    trainer = SFTTrainer(
        model=adapted_model(config),
        args=plain_sft_config(
            directory,
            per_device_train_batch_size=training.global_batch_size,
            num_train_epochs=1,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            router_aux_loss_coef=0.0,  # ours is the language model's loss alone
            logging_steps=1,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(path_of(config.recipe.model.uri)),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def plain_sft_config(directory: Path, **settings: Any) -> Any:
    """Return TRL's SFTConfig for plain training on the CPU in fp32 that leaves nothing behind."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(directory),
        packing=False,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )


def optimizer_of(recipe: TrainingRecipe, parameters: list[Any]) -> Any:
    """Return torch's own optimizer of a recipe."""
    import torch

    kind = torch.optim.AdamW if recipe.optimizer is Optimizer.ADAMW else torch.optim.SGD
    return kind(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

"""Reward models: sequence classifiers with one label. Every rank asks a copy of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from finetune_contract.artifact import RewardIdentity
from finetune_contract.reasons import Reason
from finetune_contract.recipe import ModelRecipe
from finetune_contract.runconfig import RunConfig
from finetune_rewards.samples import Samples, Text, text_of
from finetune_trainer.distributed import Ranks
from finetune_trainer.errors import Failure
from finetune_trainer.model import DTYPES
from finetune_trainer.sources import ModelSource, fetch_model, resolve_model
from finetune_trainer.tokenizer import load_tokenizer

ROWS = 8  # in one forward pass


class RewardModel:
    """Scores the dialogue of prompt and completion by the logit of the only label."""

    def __init__(self, name: str, directory: Path, config: RunConfig, device: torch.device) -> None:
        self._tokenizer = load_tokenizer(directory)
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        precision = DTYPES[config.recipe.training.precision]
        self._model = _load(name, directory, precision).to(device).eval()
        self._model.config.pad_token_id = self._tokenizer.pad_token_id  # finds each row's end
        self._device = device

    def __call__(self, samples: Samples) -> list[float]:
        """Return the logit of each completion."""
        pairs = zip(samples.prompts, samples.completions, strict=True)
        tokens = [self._tokens(prompt, completion) for prompt, completion in pairs]
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        scores = [0.0] * len(tokens)
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            for index, score in zip(rows, self._scores([tokens[i] for i in rows]), strict=True):
                scores[index] = score
        return scores

    @property
    def bytes(self) -> int:
        """Return what the model's weights hold of the device."""
        held = (*self._model.parameters(), *self._model.buffers())
        return sum(tensor.nbytes for tensor in held)

    def _tokens(self, prompt: Text, completion: Text) -> list[int]:
        if isinstance(prompt, str) or isinstance(completion, str):
            return list(self._tokenizer(text_of(prompt) + text_of(completion))["input_ids"])
        if self._tokenizer.chat_template is None:
            turns = [*prompt, *completion]
            return list(self._tokenizer("\n".join(text_of([turn]) for turn in turns))["input_ids"])
        text = self._tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def _scores(self, rows: list[list[int]]) -> list[float]:
        batch = self._tokenizer.pad(
            {"input_ids": rows}, padding=True, padding_side="right", return_tensors="pt"
        )
        logits = self._model(**batch.to(self._device)).logits
        scores: list[float] = logits[:, 0].float().tolist()
        return scores


@dataclass(frozen=True)
class RewardModels:
    """A recipe's reward models by the rewards' names, on this rank's device, and their commits."""

    scorers: dict[str, RewardModel] = field(default_factory=dict)
    identities: tuple[RewardIdentity, ...] = ()

    @property
    def bytes(self) -> int:
        """Return what they hold of the device."""
        return sum(scorer.bytes for scorer in self.scorers.values())


def reward_models(config: RunConfig, ranks: Ranks) -> RewardModels:
    """Return the recipe's reward models; none for a method without.

    All ranks must call it. Raises Failure: RewardInvalid, and what fetching a model raises.
    """
    grpo, layout = config.recipe.grpo, config.layout
    asked = {r.name: r.model for r in grpo.rewards if r.model is not None} if grpo else {}
    cache = Path(layout.cache_dir or layout.scratch_dir, "models")

    def resolve() -> dict[str, ModelSource]:
        return {
            name: resolve_model(
                ModelRecipe(uri=model.uri, revision=model.revision),
                layout.credentials.model,
                cache=cache,
            )
            for name, model in asked.items()
        }

    def load(sources: dict[str, ModelSource]) -> dict[str, RewardModel]:
        return {
            name: RewardModel(
                name,
                fetch_model(source, source.files, cache, layout.credentials.model),
                config,
                ranks.device,
            )
            for name, source in sources.items()
        }

    if not asked:
        return RewardModels()
    sources = ranks.lead(resolve)
    made = ranks.together(lambda: load(sources))
    identities = [
        RewardIdentity(name=name, revision=source.identity.revision)
        for name, source in sources.items()
    ]
    return RewardModels(made, tuple(identities))


def _load(name: str, directory: Path, dtype: torch.dtype) -> Any:
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            str(directory),
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise _unusable(name, f"its model can not be loaded: {error}") from error
    if model.config.num_labels != 1:
        raise _unusable(
            name, f"its model has {model.config.num_labels} labels; a reward model has one"
        )
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])[0]
        raise _unusable(name, f"its model's files lack {missing}; a chat model is no reward model")
    return model.requires_grad_(False)


def _unusable(name: str, why: str) -> Failure:
    return Failure(Reason.REWARD_INVALID, f"reward {name}: {why}")

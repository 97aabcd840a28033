"""Reward models: sequence classifiers with one label. Every rank asks a copy of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from finetune_contract.artifact import ModelIdentity, RewardIdentity
from finetune_contract.reasons import Reason
from finetune_contract.recipe import ModelRecipe
from finetune_contract.runconfig import RunConfig
from finetune_rewards.scores import answers
from finetune_rewards.scores.samples import Item, Samples, Text, Turn, text_of
from finetune_trainer.checkpoints.inputs import newest_checkpoint
from finetune_trainer.data.bounds import Exceeded, bounded
from finetune_trainer.methods.grpo.recipe import grpo_of
from finetune_trainer.model.base import DTYPES, LOADING, MISFITS
from finetune_trainer.model.positions import follows_longest_row, longest_row
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.publish import open_output
from finetune_trainer.store.sources import ModelSource, fetch_model, resolve_model

ROWS = 8  # in one forward pass
REMEDY = "take one that was trained and saved as a sequence classifier with num_labels=1"
SECONDS, MEMORY_BYTES = 2.0, 2**30  # that a dialogue may take of the chat template


class RewardModel:
    """Scores the dialogue of prompt and completion by the logit of the only label."""

    def __init__(self, directory: Path, config: RunConfig, device: torch.device) -> None:
        self._tokenizer = load_tokenizer(directory)
        precision = DTYPES[config.recipe.training.precision]
        self._model = _load(directory, precision).to(device).eval()
        self._vocabulary = int(self._model.get_input_embeddings().weight.shape[0])
        self._longest = longest_row(self._model)
        self._at_once = 1 if follows_longest_row(self._model.config) else ROWS
        self._device = device

    def __call__(self, samples: Samples) -> list[Item]:
        """Return the logit of each completion, or why it has none."""
        found: list[Item] = []
        tokens: dict[int, list[int]] = {}
        for prompt, completion in zip(samples.prompts, samples.completions, strict=True):
            try:
                tokens[len(found)] = self._tokens(prompt, completion)
                found.append(Item())
            except _NoScoreError as why:
                found.append(answers.error(str(why)))
        order = sorted(tokens, key=lambda index: len(tokens[index]))
        for start in range(0, len(order), self._at_once):
            rows = order[start : start + self._at_once]
            for index, item in zip(rows, self._items([tokens[i] for i in rows]), strict=True):
                found[index] = item
        return found

    @property
    def bytes(self) -> int:
        """Return what the model's weights hold of the device."""
        held = (*self._model.parameters(), *self._model.buffers())
        return sum(tensor.nbytes for tensor in held)

    def _tokens(self, prompt: Text, completion: Text) -> list[int]:
        """Raise _NoScoreError for a dialogue of which the model can not be asked."""
        try:
            with bounded(SECONDS, MEMORY_BYTES):
                text = self._text(prompt, completion)
            special = self._tokenizer.chat_template is None  # else they stand in the text
            tokens = list(self._tokenizer(text, add_special_tokens=special)["input_ids"])
        except Exceeded as exceeded:
            raise _NoScoreError(
                f"the dialogue takes more {exceeded} in the model's chat template than it may "
                f"({SECONDS:g} s, {MEMORY_BYTES / 2**30:g} GiB)"
            ) from exceeded
        except Exception as why:  # a template is a program of strangers
            raise _NoScoreError(self._refusal(why)) from why
        if not tokens:
            raise _NoScoreError("the dialogue is empty")
        if self._longest is not None and len(tokens) > self._longest:
            raise _NoScoreError(
                f"the dialogue has {len(tokens)} tokens, but the model positions for "
                f"{self._longest}"
            )
        # On a GPU it would end the process, and with it the run.
        if max(tokens) >= self._vocabulary:
            raise _NoScoreError(f"the tokenizer has a token {max(tokens)} that the model has not")
        return tokens

    def _text(self, prompt: Text, completion: Text) -> str:
        if self._tokenizer.chat_template is not None:
            turns = [*_turns("user", prompt), *_turns("assistant", completion)]
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False))
        if isinstance(prompt, str):
            return prompt + text_of(completion)
        return "\n".join(text_of([turn]) for turn in (*prompt, *_turns("assistant", completion)))

    def _refusal(self, why: Exception) -> str:
        # The template's own words are told if they stand in it, and so hold nothing of the row.
        said, kind, source = str(why), type(why).__name__, self._tokenizer.chat_template
        known = isinstance(why, TemplateError) and said and said in str(source)
        return f"the model's tokenizer or chat template refuses it: {said if known else kind}"

    def _items(self, rows: list[list[int]]) -> list[Item]:
        """Return the rows' scores; one at which the model fails costs no other row its score."""
        try:
            return [answers.item(score) for score in self._logits(rows)]
        except torch.AcceleratorError:
            raise  # this process has lost its device
        except (RuntimeError, LookupError, ValueError) as why:  # OutOfMemoryError is the first kind
            if len(rows) == 1:
                return [answers.error(f"the model fails on {len(rows[0])} tokens: {why}")]
        return [alone for row in rows for alone in self._items([row])]

    @torch.no_grad()
    def _logits(self, rows: list[list[int]]) -> list[float]:
        """Return the logits of rows, each as if it were alone.

        Decoders pool at the last token that is not the pad token, wherever the row ends. So the pad
        token is one that stands in none of the rows.
        """
        used = {token for row in rows for token in row}
        pad = next((token for token in range(self._vocabulary) if token not in used), None)
        if pad is None and len(rows) > 1:
            return [logit for row in rows for logit in self._logits([row])]
        longest = max(len(row) for row in rows)
        ids = [[*row, *[pad or 0] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        self._model.config.get_text_config().pad_token_id = pad
        logits = self._model(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=torch.tensor(mask, device=self._device),
        ).logits
        found: list[float] = logits[:, 0].float().tolist()
        return found


class _NoScoreError(Exception):
    """Why a dialogue is not scored."""


def _turns(role: str, text: Text) -> list[Turn]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


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
    """Return the recipe's reward models.

    Those of hf:// are taken at the commit that the job began with. All ranks must call it. Raises
    Failure: RewardInvalid, and what fetching a model raises.
    """
    layout = config.layout
    asked = {r.name: r.model for r in grpo_of(config.recipe).rewards if r.model is not None}
    cache = Path(layout.cache_dir or layout.scratch_dir, "models")
    credentials = layout.credentials.model

    def resolve() -> dict[str, ModelSource]:
        saved = newest_checkpoint(open_output(layout), config)
        before = {one.name: one.revision for one in saved.provenance.rewards} if saved else {}
        sources = {}
        for name, model in asked.items():
            recipe = ModelRecipe(uri=model.uri, revision=model.revision)
            pinned = ModelIdentity(uri=model.uri, revision=before[name]) if name in before else None
            with _naming(name):
                sources[name] = resolve_model(recipe, credentials, pinned=pinned, cache=cache)
        return sources

    def load(sources: dict[str, ModelSource]) -> dict[str, RewardModel]:
        scorers = {}
        for name, source in sources.items():
            with _naming(name):
                directory = fetch_model(
                    source, source.files, cache, credentials, checked=Path(layout.scratch_dir)
                )
                scorers[name] = RewardModel(directory, config, ranks.device)
        return scorers

    if not asked:
        return RewardModels()
    sources = ranks.lead(resolve)
    made = ranks.together(lambda: load(sources))
    identities = [
        RewardIdentity(name=name, revision=source.identity.revision)
        for name, source in sources.items()
    ]
    return RewardModels(made, tuple(identities))


def _load(directory: Path, dtype: torch.dtype) -> Any:
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            str(directory), dtype=dtype, **LOADING
        )
    except (OSError, ValueError, ImportError, SafetensorError) as why:
        raise _unusable(f"its model can not be loaded: {why}") from why
    except RuntimeError as why:
        if not any(words in str(why).lower() for words in MISFITS):
            raise
        raise _unusable(
            f"its model's files hold tensors of other sizes than config.json tells; {REMEDY}"
        ) from why
    if loading["missing_keys"]:  # transformers has put random numbers there
        missing = sorted(loading["missing_keys"])[0]
        raise _unusable(f"its model's files lack {missing}, so it would be random; {REMEDY}")
    labels = model.config.num_labels
    if labels != 1:
        raise _unusable(f"its model has {labels} labels, not one; {REMEDY}")
    return model.requires_grad_(False)


def _unusable(why: str) -> Failure:
    return Failure(Reason.REWARD_INVALID, why)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Tell of which reward a failure is: its model is another than spec.model."""
    try:
        yield
    except Failure as failure:
        raise Failure(failure.reason, f"reward {name}: {failure.message}") from failure

"""A model of 1M parameters that spells words backward now and then, and its held-out words.

The words and what is right come from reasoning-gym's task `spell_backward`. A random model is
brought so far by the trainer's own SFT, at a rank that leaves nothing of the model fixed. A third
of its rows repeat the word instead: so it can do more than it mostly does. What it learned is kept
below pytest's cache by a name that all that decides it has a part in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.stopping import Stop
from finetune_trainer.run import Run
from finetune_trainer.train import train_and_publish
from support.models.tiny_llama import write_model, write_rows
from support.trainer.runs import run_config

HELD_OUT, PROMPTS = 256, 1000
RIGHT = 13  # of 20 rows that it is taught by; the others repeat the word
LONGEST = 4  # letters
SHAPE = {
    "hidden_size": 160,
    "intermediate_size": 480,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "initializer_range": 0.02,
    "max_position_embeddings": 64,
}
LEARNED = {"maxSteps": 90, "globalBatchSize": 256, "learningRate": 4e-3, "warmupRatio": 0.1}
LORA = {"rank": 64, "alpha": 64, "targets": ["Attention", "MLP", "Embeddings", "Head"]}

Entry = dict[str, Any]


@cache
def entries() -> list[Entry]:
    """Return the task's entries, one for each word."""
    import reasoning_gym

    options: dict[str, Any] = {"min_word_len": 3, "max_word_len": LONGEST}
    data = reasoning_gym.create_dataset("spell_backward", size=12_000, seed=1, **options)
    found: dict[str, Entry] = {}
    for entry in data:
        found.setdefault(entry["metadata"]["word"].lower(), entry)
    return list(found.values())


def question(entry: Entry) -> str:
    """Return the prompt of an entry: as short as it can be."""
    return f"{entry['metadata']['word']}>"


def half_taught(models: Path, ranks: Ranks) -> Path:
    """Return the model's directory; taught at the first call, in under a minute of 2 idle cores."""
    decides = [SHAPE, LEARNED, LORA, LONGEST, RIGHT, version("torch"), version("reasoning-gym")]
    target = models / f"speller-{sha256(json.dumps(decides).encode()).hexdigest()[:16]}"
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            work = models / "speller-work"
            shutil.rmtree(work, ignore_errors=True)
            _teach(work, ranks).rename(target)
            shutil.rmtree(work)
    return target


def _teach(directory: Path, ranks: Ranks) -> Path:
    write_model(directory / "model", chat_template=None, **SHAPE)
    rows = [
        {
            "prompt": question(entry),
            "completion": entry["answer"] if index % 20 < RIGHT else entry["metadata"]["word"],
        }
        for index, entry in enumerate(entries()[HELD_OUT:])
    ]
    write_rows(directory / "train.jsonl", rows)
    config = run_config(
        directory,
        lora=LORA,
        training={**LEARNED, "sequenceLength": 32},
        microBatchSize=LEARNED["globalBatchSize"],
        packing=False,
    )
    document = config.model_dump(mode="json", by_alias=True)
    document["recipe"]["export"] = ["Merged"]
    return train(RunConfig.model_validate(document), ranks) / "merged"


def train(config: RunConfig, ranks: Ranks) -> Path:
    """Train in this process and return the artifact's directory."""
    Path(config.layout.scratch_dir).mkdir(parents=True, exist_ok=True)
    stop = Stop(config.layout.grace_seconds, leave=lambda: None)
    published = train_and_publish(Run(config, ranks, Reporter(), stop))
    return Path(unquote(urlsplit(published.uri).path))


def load(model: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """Return a model's tokenizer and the model with its adapter, as others would load them."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    return AutoTokenizer.from_pretrained(model), loaded.eval()


def pass_at_1(model: Path, rows: Sequence[Entry], adapter: Path | None = None) -> float:
    """Return the mean probability of exactly the right answer: what sampling would tend to."""
    import torch

    tokenizer, loaded = load(model, adapter)
    chances = []
    with torch.no_grad():
        for row in rows:
            asked = tokenizer(question(row))["input_ids"]
            answer = torch.tensor([*tokenizer(row["answer"])["input_ids"], tokenizer.eos_token_id])
            ids = torch.cat([torch.tensor(asked), answer])[None]
            told = loaded(input_ids=ids).logits[0, len(asked) - 1 : -1].log_softmax(-1)
            chances.append(told.gather(1, answer[:, None]).sum().exp().item())
    return sum(chances) / len(chances)

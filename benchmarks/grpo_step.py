"""Time and memory of one GRPO step: this trainer against TRL's GRPOTrainer, and where it goes.

One process each, the same settings: fp32, LoRA on a random 28M Llama, one prompt a step, 8
completions of 64 tokens (random models end one early once in a hundred), DAPO without KL, one
reward by the length of the text. With prompts of 400 tokens, as reasoning has, and of 32. Rounds
alternate, so that whatever else the machine does falls on both; medians of all steps count. Memory
is the highest resident set of a round, the libraries' share in it; the reward runner, a process of
its own of which a pod has one, is told beside it.

    python benchmarks/grpo_step.py [--rounds 5] [--steps 5] [--json FILE]
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain, islice, product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from finetune_contract.checkpoint import TrainingState
from finetune_contract.runconfig import RunConfig
from harness.command_line import command_line, save
from harness.contest import StepTimer, serve, take_turns
from harness.one_process import LLAMA_28M, ready
from support.models.tiny_llama import byte_tokenizer, write_model, write_rows
from support.trainer.runs import run_config

GROUP, COMPLETION, RANK, ALPHA, RATE = 8, 64, 16, 32, 1e-5
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WIDEST = 400  # characters: the reward falls from 1 to 0 over them
PROMPTS = {"long": 400, "short": 32}  # tokens
BARS = {"long": 0.6, "short": 1.0}
MEMORY_BAR = 1.0
WARM_UP = 1  # first steps of a round, not counted
PARTS = ("generation", "reward", "forward", "backward")

Step = dict[str, float]


class Clock:
    """Adds up the seconds of functions by part, until they are taken."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def watch(self, part: str, owner: Any, name: str) -> None:
        """Have calls of an object's function counted."""
        function = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*arguments, **options)
            finally:
                self._seconds[part] += time.monotonic() - began

        setattr(owner, name, timed)

    def take(self, step: float) -> Step:
        """Return the parts of a step of so many seconds, and what is left of it."""
        parts = {part: self._seconds[part] for part in PARTS}
        self._seconds.clear()
        return {**parts, "rest": step - sum(parts.values()), "step": step}


def write_inputs(directory: Path, length: int, count: int) -> list[dict[str, Any]]:
    """Write the model; return prompts of `length` tokens each."""
    model = directory / "model"
    write_model(model, **LLAMA_28M, max_position_embeddings=512)
    # Every token of the vocabulary is text; prompts, of small letters, have a token a letter.
    others = [chr(code) for code in range(33, 127) if not chr(code).islower()]
    tokenizer = byte_tokenizer()
    words = islice(product(others, chain(others, map(chr, range(97, 123)))), 10**4)
    merges = list(words)[: LLAMA_28M["vocab_size"] - len(tokenizer)]
    tokenizer = byte_tokenizer(merges=merges)
    tokenizer.save_pretrained(model)
    draw = random.Random(0)
    empty = tokenizer.apply_chat_template(
        [{"role": "user", "content": ""}], add_generation_prompt=True, return_dict=False
    )
    size = length - len(empty)
    return [
        {"prompt": [{"role": "user", "content": "".join(draw.choices("abcdefgh", k=size))}]}
        for _ in range(count)
    ]


def ours(config: RunConfig, steps: int, stack: ExitStack) -> Callable[[], list[Step]]:
    """Return a function that does one round and returns its steps."""
    trainer, clock = ready(config, stack), Clock()
    feed: Any = trainer.feed
    collector = feed._collector
    clock.watch("generation", collector._engine, "draw")
    clock.watch("reward", collector, "_score")
    clock.watch("forward", trainer.engine.deepspeed, "forward")
    clock.watch("backward", trainer.engine.deepspeed, "backward")
    state = TrainingState(step=0, supervised_tokens=0, loss=0.0)

    def one_step() -> Step:
        nonlocal state
        began = time.monotonic()
        batch = feed.batch(state, lambda: False)
        assert batch is not None
        trainer.engine.step(batch.micro_batches, batch.normaliser, RATE, lambda: False)
        taken = clock.take(time.monotonic() - began)
        state = feed.stepped(state.model_copy(update={"step": state.step + 1}))
        return {**taken, "tokens": batch.learned}

    return lambda: [one_step() for _ in range(steps)]


def by_length(completions: list[list[dict[str, str]]], **columns: Any) -> list[float]:
    """Score as the trainer's builtin does."""
    return [max(0.0, 1 - max(0, len(turn["content"]) - 1) / WIDEST) for [turn] in completions]


def trl(
    model: Path, prompts: list[dict[str, Any]], steps: int, out: Path
) -> Callable[[], list[Step]]:
    """Return a function that does one round with GRPOTrainer."""
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    timer, clock = StepTimer(), Clock()
    taken: list[Step] = []
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        reward_funcs=by_length,
        args=GRPOConfig(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=GROUP,
            num_generations=GROUP,
            max_completion_length=COMPLETION,
            learning_rate=RATE,
            max_grad_norm=1.0,
            lr_scheduler_type="constant",
            beta=0.0,
            loss_type="dapo",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS
        ),
        callbacks=[timer],
    )
    trainer.remove_callback(PrinterCallback)
    clock.watch("generation", trainer, "_generate")
    clock.watch("reward", trainer, "_calculate_rewards")
    clock.watch("forward", trainer, "compute_loss")
    clock.watch("backward", trainer.accelerator, "backward")
    plain = trainer.training_step

    def training_step(*arguments: Any, **options: Any) -> Any:
        loss = plain(*arguments, **options)
        length = trainer._metrics["train"]["completions/mean_length"][-1]
        taken.append({**clock.take(0.0), "tokens": GROUP * length})
        return loss

    trainer.training_step = training_step

    def one_round() -> list[Step]:
        taken.clear()
        trainer.train()
        return [
            {**parts, "rest": parts["rest"] + step, "step": step}
            for parts, step in zip(taken, timer.seconds, strict=True)
        ]

    return one_round


def contend(
    name: str, pipe: Connection, directory: Path, prompts: list[dict[str, Any]], steps: int
) -> None:
    """Be one contender."""
    disable_progress_bar()
    set_verbosity_error()
    with ExitStack() as stack:
        if name == "trl":
            one_round = trl(directory / "model", prompts, steps, directory / "trl")
        else:
            one_round = ours(job(directory, prompts), steps, stack)
        serve(pipe, lambda: {"steps": one_round()[WARM_UP:], "runner": children_bytes()})


def job(directory: Path, prompts: list[dict[str, Any]]) -> RunConfig:
    """Return the trainer's settings."""
    length = {"unit": "Characters", "most": 1, "tolerance": WIDEST}
    return run_config(
        directory,
        data=write_rows(directory / "train.jsonl", prompts),
        lora={"rank": RANK, "alpha": ALPHA},
        training={
            "maxSteps": 10**6,
            "learningRate": RATE,
            "globalBatchSize": GROUP,
            "sequenceLength": 512,
        },
        grpo={
            "groupSize": GROUP,
            "sampling": {"maxTokens": COMPLETION},
            "rewards": [{"name": "length", "length": length}],
        },
        microBatchSize=GROUP,
    )


def children_bytes() -> int:
    """Return the resident set of this process's children."""
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))


def measure(length: int, rounds: int, steps: int) -> dict[str, Any]:
    """Return medians, their ratios and every step's seconds, for prompts of `length` tokens."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        (directory / "scratch").mkdir()
        prompts = write_inputs(directory, length, 64)
        turns = take_turns(contend, ("trainer", "trl"), rounds, directory, prompts, steps)
    found = {
        name: list(chain.from_iterable(answer["steps"] for answer in turn.answers))
        for name, turn in turns.items()
    }
    medians = {
        name: {part: statistics.median(step[part] for step in taken) for part in taken[0]}
        for name, taken in found.items()
    }
    peaks = {name: statistics.median(turn.peaks) for name, turn in turns.items()}
    return {
        "medianSeconds": medians,
        "ratio": medians["trainer"]["step"] / medians["trl"]["step"],
        "peakBytes": peaks,
        "memoryRatio": peaks["trainer"] / peaks["trl"],
        "runnerBytes": max(answer["runner"] for answer in turns["trainer"].answers),
        "threads": {name: turn.threads for name, turn in turns.items()},
        "steps": found,
    }


def show(name: str, found: dict[str, Any]) -> bool:
    """Print what was measured with prompts of one kind; tell whether the bars hold."""
    columns = (*PARTS, "rest", "step")
    print(f"prompts of {PROMPTS[name]} tokens, median milliseconds\n")
    print(f"| | {' | '.join(columns)} | tokens | peak memory |")
    print("|---" * (len(columns) + 3) + "|")
    for contender, medians in found["medianSeconds"].items():
        times = " | ".join(f"{medians[part] * 1000:.0f}" for part in columns)
        peak = found["peakBytes"][contender] / 2**20
        print(f"| {contender} | {times} | {medians['tokens']:.0f} | {peak:.0f} MiB |")
    print(
        f"\ntime {found['ratio']:.3f} (bar: at most {BARS[name]}), memory "
        f"{found['memoryRatio']:.3f} (bar: at most {MEMORY_BAR}); the reward runner has "
        f"{found['runnerBytes'] / 2**20:.0f} MiB\n"
    )
    return bool(found["ratio"] <= BARS[name] and found["memoryRatio"] <= MEMORY_BAR)


def main() -> int:
    """Measure, print and tell whether the bars hold."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    everything = {}
    held = True
    for name, length in PROMPTS.items():
        everything[name] = measure(length, arguments.rounds, arguments.steps)
        held &= show(name, everything[name])
    save(everything, arguments.json)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())

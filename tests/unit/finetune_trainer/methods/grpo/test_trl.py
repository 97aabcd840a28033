"""Loss, gradient and advantages against those of TRL's GRPOTrainer, on the same completions."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.grpo import GrpoLoss, GrpoRecipe
from finetune_trainer.batch.micro_batch import MicroBatch, PolicyTerms
from finetune_trainer.methods.grpo.advantages import advantages
from finetune_trainer.methods.grpo.losses import GrpoObjective, normaliser
from support.models.tiny_llama import write_model

LIMIT = 12
LENGTHS = (3, 12, 1, 7)
THEIRS = {
    GrpoLoss.GRPO: "grpo",
    GrpoLoss.DR_GRPO: "dr_grpo",
    GrpoLoss.DAPO: "dapo",
    GrpoLoss.GSPO: "grpo",
    GrpoLoss.CISPO: "cispo",
}


def trainer(made: GrpoRecipe, now: torch.Tensor) -> Any:
    """Return as much of a GRPOTrainer as its loss asks for; the log-probabilities are given."""
    low, high = made.clips
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True
    )
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (now, torch.zeros_like(now), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="sequence" if made.loss is GrpoLoss.GSPO else "token",
        beta=made.beta,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        loss_type=THEIRS[made.loss],
        epsilon_low=low,
        epsilon_high=high,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        accelerator=accelerator,
        max_completion_length=LIMIT,
        _entropy_bonus_enabled=False,
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
    )


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("kind", list(GrpoLoss))
def test_loss_and_gradient_are_trls(kind: GrpoLoss, beta: float) -> None:
    from trl import GRPOTrainer

    rewards = [{"name": "right", "regex": {"pattern": "x"}}]
    made = GrpoRecipe.model_validate(
        {"loss": kind, "beta": beta, "sampling": {"maxTokens": LIMIT}, "rewards": rewards}
    )
    draw = np.random.default_rng(3)
    mask = torch.arange(LIMIT)[None] < torch.tensor(LENGTHS)[:, None]
    table = torch.from_numpy(draw.uniform(-3, -0.1, mask.shape)).float()
    width = 3e-3 if kind is GrpoLoss.GSPO else 0.5
    then = table + torch.from_numpy(draw.normal(0, width, mask.shape)).float()
    reference = table + torch.from_numpy(draw.normal(0, 0.5, mask.shape)).float()
    advantages = torch.tensor([1.3, -0.7, 0.0, 2.1])

    theirs = table.clone().requires_grad_()
    empty = torch.empty(len(LENGTHS), 0, dtype=torch.int64)
    expected = GRPOTrainer._compute_loss(
        trainer(made, theirs),
        SimpleNamespace(training=True),
        {
            "prompt_ids": empty,
            "prompt_mask": empty,
            "completion_ids": torch.zeros_like(mask, dtype=torch.int64),
            "completion_mask": mask.long(),
            "advantages": advantages,
            "old_per_token_logps": then,
            "ref_per_token_logps": reference,
            "num_items_in_batch": mask.sum(),
        },
    )
    expected.backward()

    ours = table[mask].clone().requires_grad_()
    count = torch.tensor(LENGTHS)
    terms = PolicyTerms(
        advantages.repeat_interleave(count),
        then[mask],
        reference[mask] if beta else None,
        torch.arange(len(LENGTHS)).repeat_interleave(count),
        count.float(),
    )
    none = torch.empty(0)
    batch = MicroBatch(none, None, None, none, none, none, torch.ones(len(ours)), terms)
    loss = GrpoObjective(made)(ours, batch)[0] / normaliser(len(LENGTHS), sum(LENGTHS), made)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert theirs.grad is not None
    assert ours.grad is not None
    assert (ours.grad - theirs.grad[mask]).abs().max() <= 1e-5
    assert ours.grad.abs().max() > 0


SIZE = 4
WEIGHTS = (1.0, 0.5)
# Groups: both rewards mixed, one reward alike, no spread, one completion that nothing scored, one
# of which but one is left.
SCORES: list[tuple[float | None, float | None]] = [
    *[(1.0, 3.0), (0.0, -1.0), (0.5, 0.25), (0.0, 8.0)],
    *[(1.0, 2.0), (1.0, 0.5), (1.0, 0.5), (1.0, -4.0)],
    *[(0.25, 0.5)] * SIZE,
    *[(0.0, 1.0), (None, None), (1.0, 0.0), (0.5, 16.0)],
    *[(None, None), (1.0, 1.0), (None, None), (None, None)],
]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A GRPOTrainer whose rewards are those of SCORES, whatever it draws."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    directory: Path = tmp_path_factory.mktemp("trl")
    model = write_model(directory / "model")

    def column(index: int) -> Any:
        def reward(completions: Any, **_: Any) -> list[float | None]:
            assert len(completions) == len(SCORES)
            return [row[index] for row in SCORES]

        return reward

    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=[column(0), column(1)],
        args=GRPOConfig(
            output_dir=str(directory),
            reward_weights=list(WEIGHTS),
            per_device_train_batch_size=len(SCORES),
            num_generations=SIZE,
            max_completion_length=1,
            bf16=False,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": "?"}]),
        processing_class=AutoTokenizer.from_pretrained(model),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"scaleRewards": "Group"},
        {"scaleRewards": "Batch"},
        {"scaleRewards": "None"},
        {"aggregate": "GDPO"},
    ],
    ids=lambda fields: "-".join(fields.values()),
)
def test_advantages_are_trls(scorer: Any, fields: dict[str, str]) -> None:
    scorer.scale_rewards = fields.get("scaleRewards", "Group").lower()
    decoupled = "aggregate" in fields
    scorer.multi_objective_aggregation = "normalize_then_sum" if decoupled else "sum_then_normalize"
    scorer.model.train()
    theirs = scorer._generate_and_score_completions([{"prompt": "?"}] * len(SCORES))["advantages"]

    rewards = [
        {"name": f"r{index}", "weight": weight, "regex": {"pattern": "x"}}
        for index, weight in enumerate(WEIGHTS)
    ]
    made = GrpoRecipe.model_validate({"groupSize": SIZE, "rewards": rewards, **fields})
    count = len(SCORES)
    ours = advantages(
        np.array(SCORES, dtype=np.float64),
        np.ones(count, dtype=np.int64),
        np.zeros(count, dtype=np.bool_),
        made,
    )
    assert ours.values.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)
    assert ours.spread.tolist() == [True, True, False, True, False]

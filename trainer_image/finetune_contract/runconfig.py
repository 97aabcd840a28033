"""RunConfig: all that the trainer is told, as one versioned JSON document.

A *recipe* decides the artifact; a *layout* decides only where and how fast it is made. The digest
is the recipe's, so that an attempt with another layout is still the same training.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from finetune_contract.layout import Layout
from finetune_contract.model import Terse
from finetune_contract.recipe import Recipe

VERSION: Literal["finetune.dev/runconfig/v1alpha1"] = "finetune.dev/runconfig/v1alpha1"
FILE_NAME = "runconfig.json"
# The environment of a pod says which bytes that file has to have, and, for a pod whose file is not
# to be believed, of which attempt it is.
DIGEST_VARIABLE = "FINETUNE_RUN_CONFIG_DIGEST"
ATTEMPT_VARIABLE = "FINETUNE_ATTEMPT"


class RunConfig(Terse):
    """The whole document. An older trainer reads it too, if the job uses nothing newer."""

    version: Literal["finetune.dev/runconfig/v1alpha1"]
    recipe: Recipe
    layout: Layout

    @model_validator(mode="after")
    def _batches_fit(self) -> RunConfig:
        per_pass = (self.layout.micro_batch_size or 1) * self.layout.world_size
        if self.recipe.training.global_batch_size % per_pass:
            raise ValueError(
                f"globalBatchSize {self.recipe.training.global_batch_size} is not a multiple of "
                f"microBatchSize x processes = {per_pass}"
            )
        return self

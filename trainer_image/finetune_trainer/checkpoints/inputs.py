"""What a job began with: the inputs that its checkpoints were made from.

A branch of a repository moves on and files are published anew, while a job runs for days and is
started again. What can be pinned is taken as it was (the commits of hf:// models, those that are
rewards among them); what can not is refused, rather than that all steps done are lost without a
word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune_contract.artifact import DatasetIdentity, Provenance
from finetune_contract.checkpoint import CheckpointManifest
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_trainer.checkpoints.archive import Archive
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.storage import Store


def newest_checkpoint(store: Store, config: RunConfig) -> CheckpointManifest | None:
    """Return the manifest of the newest checkpoint to go on from; None where the job begins."""
    archive, digest = Archive(store, config.layout), config.recipe.digest()
    complete, _ = archive.listed()
    manifests = (archive.whole(place) for place in complete)
    return next((m for m in manifests if m and m.provenance.recipe_digest == digest), None)


def refuse_changed(saved: CheckpointManifest | None, ours: Provenance) -> None:
    """Raise InputChanged, naming the inputs, if a checkpoint of the recipe was made from others."""
    if saved is None:
        return
    changed = list(_changed(saved.provenance, ours))
    if changed:
        raise Failure(
            Reason.INPUT_CHANGED,
            f"changed since the checkpoint of step {saved.state.step}: {', '.join(changed)}; put "
            "back what was there, or create the job anew to train on what is there now",
        )


def _changed(theirs: Provenance, ours: Provenance) -> Iterator[str]:
    if theirs.model != ours.model:
        yield f"{ours.model.uri} (spec.model)"
    yield from _changed_files("spec.data.train", theirs.datasets, ours.datasets)
    yield from _changed_files("spec.data.eval", theirs.eval_datasets, ours.eval_datasets)
    if theirs.init_from != ours.init_from:
        yield "the adapter of spec.model.initFrom"
    if theirs.chat_template != ours.chat_template:
        yield "the template of spec.model.chatTemplate"
    for reward in ours.rewards:
        if reward not in theirs.rewards:
            yield f"the reward {reward.name}"


def _changed_files(
    field: str, theirs: Sequence[DatasetIdentity], ours: Sequence[DatasetIdentity]
) -> Iterator[str]:
    for before, now in zip(theirs, ours, strict=True):  # of one recipe
        if before != now:
            yield f"{now.uri} ({field})"

"""`model.initFrom`: going on from a published adapter.

Whether it fits the job is settled by its manifest and its adapter_config.json, before the base
model's weights are fetched; that every tensor has its place, when they are loaded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from finetune_contract.artifact import MANIFEST, Manifest, ModelIdentity
from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraRecipe, Recipe
from finetune_contract.runconfig import RunConfig
from finetune_trainer.adapter.export import CONFIG, WEIGHTS
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.appearing import alone, appearing, own_directory
from finetune_trainer.store.artifacts import Located, download, locate, read_checked
from finetune_trainer.store.digests import agrees, is_file
from finetune_trainer.store.storage import Role, Store, hash_file

log = logging.getLogger(__name__)


def check_initial(recipe: Recipe, model: ModelIdentity, credentials_dir: str | None) -> str | None:
    """Return the digest of the adapter to go on from; None if the job names none.

    Raises Failure(AdapterMismatch), naming both values, for an adapter of another base model, of
    other LoRA settings or on other roles, and for an artifact that is damaged or not there.
    """
    if recipe.model.init_from is None:
        return None
    with _as_mismatch():
        store = Store(recipe.model.init_from, Role.MODEL, credentials_dir)
        located = locate(store)
        located.entry(WEIGHTS)
        config = json.loads(read_checked(store, located.base, located.entry(CONFIG)))
    _compare_bases(located.manifest.provenance.model, model)
    _compare_settings(config, recipe.lora)
    _compare_roles(located.manifest, recipe.lora)
    log.info("goes on from %s (%s)", recipe.model.init_from, located.digest)
    return located.digest


def fetch_initial(config: RunConfig, digest: str | None) -> Path | None:
    """Return the weights file on this machine of the adapter that `check_initial` found, if any."""
    uri, layout = config.recipe.model.init_from, config.layout
    if uri is None or digest is None:
        return None
    cache = Path(layout.cache_dir or layout.scratch_dir, "adapters")
    target = cache / digest.removeprefix("sha256:") / WEIGHTS
    own_directory(own_directory(cache) / target.parent.name)
    with alone(Path(f"{target.parent}.lock")), _as_mismatch():
        if not _is_kept(target, digest, Path(layout.scratch_dir)):
            store = Store(uri, Role.MODEL, layout.credentials.model)
            located = locate(store)
            if located.digest != digest:
                raise _mismatch(f"{store.uri} was published anew while the job started")
            download(store, located.base, located.entry(WEIGHTS), target)
            with appearing(target.with_name(MANIFEST)) as partial:
                partial.write_bytes(located.data)
    return target


def _is_kept(weights: Path, digest: str, checked: Path) -> bool:
    """Tell whether an adapter of the cache is whole: its manifest has the digest, and names its."""
    manifest = weights.with_name(MANIFEST)
    if not is_file(manifest) or hash_file(manifest) != digest:
        return False
    data = manifest.read_bytes()
    entry = Located("", Manifest.model_validate_json(data), data).entry(WEIGHTS)
    return is_file(weights, entry.bytes) and agrees(weights, entry.sha256, checked)


def load_initial(model: Any, weights: Path) -> None:
    """Copy an adapter's tensors into a PEFT model whose adapter is whole, not yet sharded."""
    tensors = load_file(weights)
    places = get_peft_model_state_dict(model, save_embedding_layers=False)
    odd = sorted(tensors.keys() ^ places.keys())
    if odd:
        raise _mismatch(
            f"{len(odd)} tensors of the adapter and of the job are not the other's, such as "
            f"{odd[0]}"
        )
    with torch.no_grad():
        for name, place in places.items():
            if tensors[name].shape != place.shape:
                raise _mismatch(
                    f"{name} is {tuple(tensors[name].shape)} in the adapter and "
                    f"{tuple(place.shape)} in the job"
                )
            place.copy_(tensors[name])


def _compare_bases(theirs: ModelIdentity, ours: ModelIdentity) -> None:
    if theirs.revision == ours.revision:
        return  # a commit or a digest of the files: equal ones name equal weights
    if _scheme(theirs.uri) == _scheme(ours.uri):
        raise _mismatch(
            f"the adapter is of {theirs.uri} at {theirs.revision}, the job's spec.model is "
            f"{ours.uri} at {ours.revision}"
        )
    log.warning(
        "the adapter of model.initFrom is of %s, spec.model is %s: revisions of different stores "
        "can not be compared, so only the shapes of the weights are",
        *(theirs.uri, ours.uri),
    )


def _compare_settings(config: dict[str, Any], lora: LoraRecipe) -> None:
    pairs = {
        "rank": (config.get("r"), lora.rank),
        "alpha": (config.get("lora_alpha"), lora.alpha),
        "rslora": (config.get("use_rslora", False), lora.rslora),
        "dora": (config.get("use_dora", False), lora.dora),
    }
    for field, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise _mismatch(f"spec.lora.{field} is {_word(ours)}, the adapter's {_word(theirs)}")


def _compare_roles(manifest: Manifest, lora: LoraRecipe) -> None:
    theirs = {coverage.role for coverage in manifest.lora}
    if theirs != set(lora.targets):
        raise _mismatch(
            f"spec.lora.targets is {', '.join(sorted(lora.targets))}, the adapter's "
            f"{', '.join(sorted(theirs)) or 'not told by its manifest'}"
        )


@contextmanager
def _as_mismatch() -> Iterator[None]:
    """Turn a damaged artifact into a mismatch: trying again does not mend another job's."""
    try:
        yield
    except Failure as failure:
        if failure.reason is not Reason.VERIFICATION_FAILED:
            raise
        raise _mismatch(failure.message) from failure


def _scheme(uri: str) -> str:
    return uri.partition("://")[0]


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mismatch(message: str) -> Failure:
    return Failure(Reason.ADAPTER_MISMATCH, f"spec.model.initFrom: {message}")

"""A job's own chat template, or settings of the model's: a directory of its tokenizer with them.

All that reads a tokenizer reads that directory: rows and prompts are rendered by it, and it is
published. The model's own directory may be others' too, and stays as it is.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_contract.model import canonical_json, sha256_digest
from finetune_contract.reasons import Reason
from finetune_contract.recipe import TemplateSetting
from finetune_trainer.model.files import read_config
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.appearing import alone, appearing, own_directory
from finetune_trainer.store.sources import SMALL_FILES

TEMPLATE, TOKENIZER = "chat_template.jinja", "tokenizer_config.json"
OTHERS = ("chat_template.json", TEMPLATE)  # where transformers looks before the configuration
# What transformers gives a template at each rendering.
GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")

Templates = str | dict[str, str]  # one, or several by name


def with_template(
    directory: Path, template: str | None, settings: Mapping[str, TemplateSetting], scratch: Path
) -> Path:
    """Return a directory of the model's small files, in which the chat template is the given one,
    else the model's own, with the settings as defaults."""
    if template is None and not settings:
        return directory
    key = sha256_digest(canonical_json([str(directory), template, dict(settings)]).encode())[-16:]
    root = own_directory(scratch / "tokenizers")
    target = root / key
    with alone(root / f"{key}.lock"):
        if not target.exists():
            own = template or load_tokenizer(directory).chat_template
            if own is None:
                raise Failure(
                    Reason.MODEL_UNSUPPORTED,
                    "the base model has no chat template that spec.model.chatTemplateKwargs could "
                    "set: give it one by spec.model.chatTemplate",
                )
            _check(own, settings)
            with appearing(target) as partial:
                partial.mkdir()
                _copy(directory, partial, _set(own, settings))
    return target


def _check(templates: Templates, settings: Mapping[str, TemplateSetting]) -> None:
    """Raise Failure for a setting that would change nothing."""
    texts = [templates] if isinstance(templates, str) else [*templates.values()]
    for name in settings:
        if name in GIVEN or not any(re.search(rf"\b{name}\b", text) for text in texts):
            why = "is given by whatever renders" if name in GIVEN else "stands nowhere in"
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                f"spec.model.chatTemplateKwargs: {name} {why} the chat template, so it would change"
                " nothing; remove it, or write it as the template does",
            )


def _copy(directory: Path, target: Path, templates: Templates) -> None:
    for file in directory.iterdir():
        if file.is_file() and file.suffix in SMALL_FILES and file.name not in OTHERS:
            shutil.copyfile(file, target / file.name)
    exists = (target / TOKENIZER).exists()
    config: dict[str, Any] = read_config(target, TOKENIZER) if exists else {}
    config.pop("chat_template", None)
    if isinstance(templates, str):
        (target / TEMPLATE).write_text(templates)
    else:
        config["chat_template"] = [{"name": n, "template": t} for n, t in templates.items()]
    (target / TOKENIZER).write_text(json.dumps(config))


def _set(templates: Templates, settings: Mapping[str, TemplateSetting]) -> Templates:
    if not isinstance(templates, str):
        return {name: head(settings) + text for name, text in templates.items()}
    return head(settings) + templates


def head(settings: Mapping[str, TemplateSetting]) -> str:
    """Return the beginning of a template that gives settings a value where they have none."""
    return "".join(
        f"{{%- if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif -%}}"
        for name, value in settings.items()
    )


def _literal(value: TemplateSetting) -> str:
    if isinstance(value, str):
        return "'" + value.encode("unicode_escape").decode().replace("'", "\\'") + "'"
    return str(value).lower()

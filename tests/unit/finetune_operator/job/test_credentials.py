"""A pod knows which field names a Secret; whoever has to mend it needs the Secret's own name."""

import pytest

from finetune_operator.job.credentials import with_secrets_named
from finetune_trainer.store.storage import Role
from finetune_trainer.store.storage_errors import Place
from support.operator.values import job

KEYS = {"credentialsSecretRef": {"name": "bucket-keys"}}


@pytest.mark.parametrize("role", [Role.OUTPUT, Role.DATA, Role.MODEL], ids=lambda role: role.field)
def test_the_secret_of_a_trainers_words_is_named(role: Role) -> None:
    part = role.field.rpartition(".")[2]
    block = {
        "output": {"uri": "s3://adapters/bot/"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "model": {"uri": "hf://org/name"},
    }[part]
    said = Place("s3://bucket", role.field, role.not_found).identity
    told = with_secrets_named(job(**{part: {**block, **KEYS}}), said)
    assert told == f'{said} ("bucket-keys")'
    assert with_secrets_named(job(), said) == said, "it names none"

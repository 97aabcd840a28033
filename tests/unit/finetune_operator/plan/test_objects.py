"""What stands as planned, whatever others add beside it."""

from typing import Any

import pytest

from finetune_operator.plan.objects import is_as_planned, shared
from support.operator.values import job


@pytest.mark.parametrize(
    ("secrets", "stands"),
    [(["a", "b"], True), (["own", "b", "a"], True), (["a"], False), ([], False), (None, False)],
)
def test_a_service_account_may_be_given_more_secrets_to_pull_with(
    secrets: Any, stands: bool
) -> None:
    account, _ = shared(job(), ["a", "b"])
    found = {**account, "imagePullSecrets": secrets and [{"name": name} for name in secrets]}
    assert is_as_planned(found, account, begun=True) is stands

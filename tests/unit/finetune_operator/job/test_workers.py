"""Which of a worker's resources are devices."""

from typing import Any

import pytest

from finetune_operator.job.workers import extended_resources
from support.operator.values import job


@pytest.mark.parametrize(
    ("limits", "devices"),
    [
        ({"nvidia.com/gpu": 8, "cpu": 8, "memory": "64Gi"}, ["nvidia.com/gpu"]),
        (
            {"amd.com/gpu": 8, "rdma/hca_shared": 1, "ephemeral-storage": "1Gi"},
            ["amd.com/gpu", "rdma/hca_shared"],
        ),
        ({"cpu": 8, "hugepages-2Mi": "1Gi", "kubernetes.io/batteries": 1}, []),
    ],
)
def test_resources_with_a_domain_of_their_own_are_devices(
    limits: dict[str, Any], devices: list[str]
) -> None:
    assert extended_resources(job(workers={"resources": {"limits": limits}})) == devices
    assert extended_resources(job()) == []
    assert extended_resources(job(workers={"resources": {"requests": {"cpu": 1}}})) == []

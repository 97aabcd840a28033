"""What a resource.Quantity amounts to."""

import pytest

from finetune_api.quantity import amount


@pytest.mark.parametrize(
    ("quantity", "bytes_"),
    [
        (7, 7),
        ("7", 7),
        ("1Gi", 2**30),
        ("512Mi", 512 * 2**20),
        ("1.5Ki", 1536),
        ("2k", 2000),
        ("1G", 10**9),
        ("3E", 3 * 10**18),
        ("1e3", 1000),
        ("2E2", 200),
        ("1500m", 2),
        ("2500000u", 3),
        ("1n", 1),
        ("1e99999999", 2**63 - 1),
        ("1e99999999999999999999999", 2**63 - 1),
    ],
)
def test_a_quantity_is_a_number_of_bytes_rounded_up(quantity: int | str, bytes_: int) -> None:
    assert amount(quantity) == bytes_

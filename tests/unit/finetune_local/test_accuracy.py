"""What counts as an exact answer."""

import pytest

from finetune_local.accuracy import Accuracy, is_exact


@pytest.mark.parametrize(
    ("answer", "expected", "exact"),
    [
        ("5", "5", True),
        (" 5\n", "5", True),
        ("-12", "-12", True),
        ("2 + 3 = 5", "5", False),
        ("5.", "5", False),
        ("05", "5", False),
        ("", "5", False),
    ],
)
def test_exact(answer: str, expected: str, exact: bool) -> None:
    assert is_exact(answer, expected) is exact


def test_gain_is_in_points() -> None:
    assert Accuracy(base=4, adapter=20, items=32).gain == 50.0

"""What an adapter gains over its base."""

from finetune_local.accuracy import Accuracy


def test_gain_is_in_points() -> None:
    assert Accuracy(base=4, adapter=20, items=32).gain == 50.0

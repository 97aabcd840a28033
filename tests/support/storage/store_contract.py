"""What conditional writes promise on every store; a test class of a store inherits it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from finetune_trainer.process.errors import Conflict
from finetune_trainer.store.storage import Store


class ConditionalWrites:
    """Tests of the fixture `store`."""

    def test_a_write_follows_the_state_it_names_or_conflicts(self, store: Store) -> None:
        first = store.write_if("a", b"1", None)
        with pytest.raises(Conflict):
            store.write_if("a", b"2", None)
        second = store.write_if("a", b"2", first)
        with pytest.raises(Conflict):
            store.write_if("a", b"3", first)
        with pytest.raises(Conflict):
            store.write_if("none", b"3", first)
        assert store.read_tagged("a") == (b"2", second)

    def test_of_racing_writers_one_wins(self, store: Store) -> None:
        etag = store.write_if("a", b"start", None)

        def race(number: int) -> bool:
            try:
                store.write_if("a", b"%d" % number, etag)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(race, range(32))) == 1

"""Who waits for something with a bound does not stand still until that bound is over."""

import threading

import pytest

from finetune_trainer.process.waiting import rest, waiting, waits


def test_a_wait_lasts_until_it_is_left() -> None:
    assert not waits()
    with waiting(60), waiting(60):
        assert waits()
    with waiting(60):
        with waiting(60):
            pass
        assert waits()
    assert not waits()


def test_a_wait_that_outlasts_its_bound_is_none() -> None:
    with waiting(0):
        assert not waits()
        with waiting(60):
            assert waits(), "another is"


def test_a_wait_that_fails_is_over() -> None:
    with pytest.raises(KeyError), waiting(60):
        raise KeyError
    assert not waits()


def test_any_threads_wait_is_one_of_the_process() -> None:
    over, begun = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        begun.set()
        over.wait(seconds)

    thread = threading.Thread(target=rest, args=(60, sleep))
    thread.start()
    assert begun.wait(60)
    assert waits()
    over.set()
    thread.join()
    assert not waits()

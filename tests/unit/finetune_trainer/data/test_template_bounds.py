"""Chat templates are programs of strangers: whatever one does, the row ends in time."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import BadRows, DataFormat
from finetune_trainer.data.bounds import Exceeded, bounded
from finetune_trainer.data.check import CheckedRow, DataFile, check_files
from finetune_trainer.data.encode import CHARACTERS_A_TOKEN, Encoder
from finetune_trainer.data.faults import Findings, Kind, RowError
from finetune_trainer.data.rows import TextPair
from finetune_trainer.process.errors import Failure
from support.models.encoded_rows import turns
from support.models.tiny_llama import CHATML, byte_tokenizer, dialogue, write_rows

SECONDS = 0.2
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}BODY{% endfor %}{% endfor %}"
GROWS = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
ENDLESS = {
    "loops": (LOOPS.replace("BODY", ""), "time"),
    "loops and writes": (LOOPS.replace("BODY", "x"), "time"),
    "loops over a text": ("{% for x in 'x' * 10**8 %}{% endfor %}", "time"),
    "a power": ("{{ (messages | length + 7) ** (10**9) }}", "time"),
    "squares": (GROWS.replace("START", "messages | length").replace("STEP", "ns.x * ns.x"), "time"),
    "looks for its clock": ("{# " + "strftime_now('" * 20_000 + " #}", "time"),
    "a long text": ("{{ messages[0].content * 10**11 }}", "memory"),
    "a long text as it is compiled": ("{{ 'x' * 10**11 }}", "memory"),
    "a long list": ("{{ ([1] * 10**11) | length }}", "memory"),
    "a wide text": ("{{ 'x'.ljust(10**11) }}", "memory"),
    "a wide number": ("{{ '{:99999999999}'.format(1) }}", "memory"),
    "doubles": (GROWS.replace("START", "'x' * 10**8").replace("STEP", "ns.x ~ ns.x"), "memory"),
}
REFUSING = {
    "a long range": "{% for a in range(10**9) %}{% endfor %}",
    "a macro without end": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
    "a division": "{{ 1 / 0 }}",
    "a long number": "{{ (10 ** 5000) | string }}",
    "an attribute of nothing": "{{ x.y.z }}",
}


def refusal(template: str, seconds: float = SECONDS, *contents: str) -> RowError:
    """Return what a row is refused for."""
    encoder = Encoder(byte_tokenizer(CHATML + template), 2**20, template_seconds=seconds)
    with pytest.raises(RowError) as caught:
        encoder.encode(turns(*(contents or ("a", "b"))))
    return caught.value


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_a_fault_of_the_row(name: str) -> None:
    template, what = ENDLESS[name]
    error = refusal(template, SECONDS if what == "time" else 1000.0)
    assert error.kind is Kind.TEMPLATE_ENDLESS
    assert f"takes more {what} in the model's chat template than a row may have" in str(error)
    assert "shorten it, or give the job another one" in str(error)


@pytest.mark.parametrize("name", REFUSING)
def test_whatever_a_template_raises_is_a_fault_of_the_row(name: str) -> None:
    assert refusal(REFUSING[name]).kind is Kind.TEMPLATE_REFUSES


def test_all_renderings_of_a_row_share_its_time() -> None:
    # A hundredth of a second each, of which there are hundreds.
    slow = "{% for a in range(40) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    assert refusal(slow, 1.0, *"ab" * 150).kind is Kind.TEMPLATE_ENDLESS
    encoder = Encoder(byte_tokenizer(CHATML + slow), 2**20, template_seconds=1.0)
    for _ in range(20):  # each has its own
        encoder.encode(turns("a", "b"))


def test_the_process_is_as_before() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGPROF)
    with pytest.raises(Exceeded, match="memory"), bounded(SECONDS, 2**20):
        bytearray(2**30)
    with pytest.raises(Exceeded, match="time"), bounded(SECONDS, 2**20):
        next(number for number in count() if number < 0)
    with bounded(1000.0, 2**30):
        pass
    after = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGPROF)
    assert after == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_a_limit_that_is_lower_stays() -> None:
    code = (
        "import resource; from finetune_trainer.data.bounds import bounded\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**30))\n"
        "with bounded(1.0, 2**34):\n"
        "    assert resource.getrlimit(resource.RLIMIT_DATA) == (2**29, 2**30)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_threads_are_bounded_in_memory() -> None:
    def work() -> None:
        with bounded(1000.0, 2**20):
            bytearray(2**30)

    with ThreadPoolExecutor(1) as pool, pytest.raises(Exceeded, match="memory"):
        pool.submit(work).result()


def test_a_process_that_hears_of_stops_goes_on_when_time_is_up() -> None:
    code = (
        "import os, signal, time\n"
        "from finetune_trainer.data.bounds import Exceeded, bounded\n"
        "from finetune_trainer.process.stopping import Stop\n"
        "Stop(60.0, lambda: os._exit(7)).listen()\n"
        "try:\n"
        "    with bounded(0.05, 2**30):\n"
        "        while True: pass\n"
        "except Exceeded: time.sleep(0.2)\n"
        "print('goes on', flush=True)\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (7, b"goes on\n")


@pytest.mark.parametrize("on_bad_row", BadRows)
def test_the_first_row_without_end_is_the_last_and_fatal(
    tmp_path: Path, on_bad_row: BadRows
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [dialogue("a", "b"), dialogue("c", "d")] * 2)
    tried: list[int] = []

    def accept(file: DataFile, checked: CheckedRow) -> None:
        tried.append(checked.line)
        if checked.line == 2:
            raise RowError(Kind.TEMPLATE_ENDLESS, "takes too long")

    file = DataFile.counted("file:///rows.jsonl", path, DataFormat.AUTO)
    findings = Findings(on_bad_row)
    check_files([file], findings, accept)
    assert tried == [1, 2]
    with pytest.raises(Failure, match=r"rows\.jsonl row 2: takes too long") as caught:
        findings.raise_if_any()
    assert caught.value.reason is Reason.DATA_INVALID


# Sixty-four blanks are one token.
BLANKS = [("Ġ" * 2**n, "Ġ" * 2**n) for n in range(6)]


def test_a_text_that_is_far_too_long_is_not_looked_at_to_its_end() -> None:
    encoder = Encoder(byte_tokenizer(), 20)
    most = 2 * 20 * CHARACTERS_A_TOKEN
    with pytest.raises(RowError, match=r"has more than \d+ tokens, more than training") as caught:
        encoder.encode(turns("a", "b" * most))
    assert caught.value.kind is Kind.TOO_LONG
    with pytest.raises(RowError, match=rf"has {most + 1} tokens, more than training"):
        Encoder(byte_tokenizer(None), 20).encode(TextPair("a", "b" * (most - 1)))


def test_what_a_row_that_is_too_long_leaves_out_is_not_looked_for() -> None:
    encoder = Encoder(byte_tokenizer("{{ messages[0].content }}<|im_end|>"), 20)
    for text, kind in ((30 * "a", Kind.TOO_LONG), ("a", Kind.TEMPLATE_DROPS_TURN)):
        with pytest.raises(RowError) as caught:
            encoder.encode(turns(text, "b"))
        assert caught.value.kind is kind


def test_a_text_of_long_tokens_fits() -> None:
    encoder = Encoder(byte_tokenizer(None, merges=BLANKS), 40)
    row = encoder.encode(TextPair("a", " " * (64 * 35 + 1) + "b"))
    assert len(row.tokens) == 39
    with pytest.raises(RowError, match=r"has 46 tokens"):
        encoder.encode(TextPair("a", " " * (64 * 42 + 1) + "b"))

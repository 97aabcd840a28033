"""The report: small, alone, escaped, and right about the run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from finetune_contract.artifact import DatasetIdentity, ModelIdentity, Provenance, TrainingSummary
from finetune_contract.layout import ZeroStage
from finetune_contract.recipe import LoraTarget
from finetune_contract.resolved import MemoryEstimate, Resolved, RoleCoverage
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.report.curves import Curve, chart, short, smooth, thin
from finetune_trainer.course.report.page import RunFacts, render
from finetune_trainer.methods.registry import method_of
from support.grpo.configs import grpo_config
from support.trainer.runs import run_config

SHA = "sha256:" + "2" * 64
HOSTILE = "s3://user:hidden@bucket/<script>alert(1)</script>.jsonl?token=hidden"
FACTS = RunFacts(
    Provenance(
        recipe_digest="sha256:" + "1" * 64,
        model=ModelIdentity(uri="hf://org/name", revision="abcdef"),
        datasets=(DatasetIdentity(uri=HOSTILE, sha256=SHA, rows=12345),),
        eval_datasets=(DatasetIdentity(uri="s3://bucket/eval.jsonl", sha256=SHA, rows=67),),
    ),
    TrainingSummary(
        steps=12,
        supervised_tokens=1_250_000,
        final_loss=0.5,
        published_step=8,
        eval_loss=0.75,
        skipped_rows=17,
        ignored_keys={"id": 3, "source": 1200},
    ),
    Resolved(
        micro_batch_size=4,
        accumulation_steps=2,
        zero_stage=ZeroStage.GRADIENTS,
        gradient_checkpointing=True,
        packing=True,
        memory=MemoryEstimate(
            weights=3 << 30,
            adapter=1 << 30,
            gradients=0,
            optimizer=0,
            activations=0,
            logits=0,
            overhead=0,
            available=80 << 30,
        ),
        lora=(RoleCoverage(role=LoraTarget.SHARED_EXPERTS, found=36, adapted=35),),
    ),
)


def steps(count: int, resumed: int | None = None) -> list[dict[str, Any]]:
    return [
        {
            "step": number,
            "loss": 2 - number / count,
            "grad_norm": 1.0,
            "learning_rate": 1e-4,
            "tokens": 100,
            "supervised_tokens": 50,
            "seconds": 0.5,
            "tokens_per_second": 200.0,
            "time": 0.0,
            "attempt": 2 if resumed and number > resumed else 1,
        }
        for number in range(1, count + 1)
    ]


EVALS = [{"step": step, "eval_loss": loss, "attempt": 1} for step, loss in ((4, 0.9), (8, 0.75))]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return run_config(tmp_path, attempt=2)


class Words(HTMLParser):
    """The text of a page, the tags it uses, and the attributes that could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [name for name, _ in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def svgs(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_the_page_stands_alone_and_escapes(config: RunConfig) -> None:
    page = render(config, steps(12), FACTS, {})
    words = Words(page)
    assert "script" not in words.tags
    assert words.loads == []
    assert "url(" not in page
    assert "@import" not in page
    assert "s3://bucket/<script>alert(1)</script>.jsonl" in words.said
    assert "hidden" not in page


def test_the_facts_are_said(config: RunConfig) -> None:
    said = Words(render(config, [*steps(12, resumed=6), *EVALS], FACTS, {})).said
    for words in (
        "tiny",
        "hf://org/name abcdef",
        "12,345 rows",
        f"s3://bucket/eval.jsonl 67 rows {SHA}",
        "Skipped rows 17",
        "Ignored keys source 1,200, id 3",
        FACTS.provenance.recipe_digest,
        "SharedExperts 36 35",
        "an estimate, 4.00 GiB of 80.0 GiB",
        "Weights 3.000 GiB",
        "ZeRO-2, packed, gradient checkpointing",
        "the adapter of step 8",
        "Final training loss 0.5000",
        "Eval loss, published 0.7500",
        "Learned tokens 1,250,000",
        "Time in steps 6.0 s",
        "Tokens per second, median 200",
        "Attempt Steps that count 1 1 to 6 2 7 to 12",
        "4 0.9000 8 0.7500",
    ):
        assert words in said, words
    assert "Gradients" not in said


def test_curves_show_resumes_and_what_was_published(config: RunConfig) -> None:
    loss, rate, norm, speed = svgs(render(config, [*steps(12, resumed=6), *EVALS], FACTS, {}))
    for svg in (loss, rate, norm, speed):
        assert svg.get("role") == "img"
        assert "attempt 2" in "".join(svg.itertext())
    assert "published" in "".join(loss.itertext())
    assert loss.get("aria-label") == (
        "loss over steps: training loss from 1.917 to 1, lowest 1; "
        "eval loss from 0.9 to 0.75, lowest 0.75."
    )
    assert len(loss.findall(".//polyline")) == 2
    assert len(loss.findall(".//circle")) == 2


def test_without_evaluations_or_plan(config: RunConfig) -> None:
    summary = FACTS.summary.model_copy(update={"eval_loss": None, "stopped_early": True})
    page = render(config, steps(1), RunFacts(FACTS.provenance, summary), {})
    assert "published</text>" not in page
    assert "Memory of one process" not in page
    assert "stopped early after" in page
    assert len(svgs(page)) == 4


def test_without_any_record(config: RunConfig) -> None:
    assert svgs(render(config, [], FACTS, {})) == []


def test_a_long_run_is_a_small_page(config: RunConfig) -> None:
    evals = [{"step": n, "eval_loss": None if n == 50 else 1.0, "attempt": 1} for n in range(900)]
    page = render(config, [*steps(30_000), *evals], FACTS, {})
    assert len(page) < 100_000
    assert "the last 20 of 900" in page
    assert len(svgs(page)[0].findall(".//polyline")) == 3  # raw, smoothed, eval


def test_thinning_keeps_means_and_the_end() -> None:
    points = [(float(x), float(x)) for x in range(1001)]
    thinned = thin(points, 101)
    assert thinned[-1] == (1000.0, 1000.0)
    assert thinned[0] == (4.5, 4.5)
    assert len(thinned) == 101
    assert thin(points[:101], 101) == points[:101]


def test_smoothing_has_no_bias_at_the_start() -> None:
    assert [y for _, y in smooth([(1, 5.0), (2, 5.0), (3, 5.0)])] == pytest.approx([5.0] * 3)
    assert smooth([(1, 1.0), (2, 2.0)])[1][1] == pytest.approx((0.9 * 1 + 2) / 1.9)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.25e-5, "1.25e-05"),
        (0.05, "0.05"),
        (12_500.3, "12,500"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_a_chart_reaches_from_the_lowest_value_to_the_highest() -> None:
    drawn = chart("T", [Curve("c", [(1, 0.0), (3, 1.0)])], [(2, "m"), (9, "outside")])
    assert drawn is not None
    assert [(drawn.across(x), drawn.down(y)) for x, y in drawn.curves[0].points] == [
        (64, 170),
        (428, 14),
    ]
    assert drawn.across(2) == 246
    assert drawn.marks == [(2, "m")]


def test_a_chart_of_one_value(config: RunConfig) -> None:
    loss, *_ = svgs(render(config, steps(1), FACTS, {}))
    assert [text.text for text in loss.findall("text")] == ["1", "1"]  # the loss, the step


def rewarded(count: int) -> list[dict[str, Any]]:
    return [
        {
            **record,
            "reward/mean": record["step"] / count,
            "reward/vowel/mean": 0.5,
            "reward/short/mean": None,
            "rollout/tokens_mean": 8.0,
        }
        for record in steps(count)
    ]


@pytest.mark.parametrize(("count", "styles"), [(12, ["train"]), (60, ["raw", "train"])])
def test_rewards_have_curves_of_their_own(tmp_path: Path, count: int, styles: list[str]) -> None:
    summary = FACTS.summary.model_copy(update={"final_reward": 0.875})
    config = grpo_config(tmp_path)
    own = method_of(config.recipe.method).curves(config.recipe)
    facts = RunFacts(FACTS.provenance, summary, FACTS.resolved)
    page = render(config, rewarded(count), facts, own)
    assert "<dt>Final mean reward</dt><dd>0.8750</dd>" in page
    [wide] = re.findall(r'<svg[^>]*aria-label="reward over steps.*?</svg>', page, re.DOTALL)
    assert re.findall(r'<g class="(raw|train)">', wide) == styles
    assert 'aria-label="reward vowel over steps: reward vowel from 0.5 to 0.5' in page
    assert 'aria-label="tokens of a completion over steps' in page
    assert "reward short" not in page.split("What it was made from")[0].lower()  # it never scored


def test_a_page_without_rewards_has_no_word_of_them(tmp_path: Path) -> None:
    page = render(run_config(tmp_path), steps(12), FACTS, {})
    assert "<h2>Reward</h2>" not in page
    assert "mean reward" not in page

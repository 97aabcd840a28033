"""Services of a panel: each has its own credentials and notes, and a rank's share of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web

from finetune_contract.rewards import Reward
from finetune_rewards.panel import Panel
from support.rewards.http_reward import TEXTS, batch
from support.services.judge import Document, after, judge_server, lengths


def reward(name: str, **http: Any) -> Reward:
    return Reward.model_validate({"name": name, "http": http})


def test_credentials_go_to_their_reward(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with judge_server() as judge, judge_server() as other:
        rewards = [reward("a", url=judge.url), reward("b", url=other.url)]
        with Panel.open(rewards, credentials={"a": str(tmp_path)}) as panel:
            panel.score(batch("x"))
        assert judge.requests[0].headers["Authorization"] == "Bearer secret"
        assert "Authorization" not in other.requests[0].headers


def test_ranks_share_the_requests_of_a_service() -> None:
    with judge_server(after(0.02)) as judge:
        service = reward("a", url=judge.url, concurrency=6)
        with Panel.open([service], ranks=3) as panel:
            panel.score(batch(*TEXTS * 4))
    assert judge.most_at_once == 2


def test_notes_of_several_services_are_one() -> None:
    polled: list[str | None] = []

    def both(told: list[str | None]) -> bool:
        return any(note and note.count("waits for reward") == 2 and "; " in note for note in told)

    async def behave(document: Document, number: int) -> web.StreamResponse:
        if both(polled):
            return web.json_response({"scores": lengths(document)})
        return web.Response(status=503)

    with judge_server(behave) as judge:
        rewards = [reward(name, url=judge.url, retries=0) for name in "ab"]
        with Panel.open(rewards) as panel:
            with panel.scoring(batch("x")) as scoring:
                while scoring.busy():
                    polled.append(scoring.waits_for)
            assert scoring.waits_for is None
    assert both(polled)

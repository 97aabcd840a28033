"""Time to score 64 completions by a service that needs 100 ms for each, one request each.

One in eight requests is answered 503 the first time and must be sent again. Ours is the panel of
the trainer. Beside it stand a serial scorer, which tries again at once, and an async function on
TRL's own path (GRPOTrainer._calculate_rewards), which waits as ours does before it tries again. The
service is a process of its own; rounds alternate and medians count.

    python benchmarks/reward_http.py [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2
import torch
from trl import GRPOTrainer
from trl.trainer.utils import shutdown_event_loop_in_daemon, start_event_loop_in_daemon

from finetune_contract.rewards import Reward
from finetune_rewards.panel import Panel
from finetune_rewards.scores.samples import Samples
from harness.command_line import command_line, save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.services.loopback import free_port

COUNT = 64
SERIAL_BAR, TRL_BAR = 0.05, 1.1
FIRST_WAIT_SECONDS = 0.1  # of finetune_rewards.services.circuit, full jitter

Scorer = Callable[[], list[float]]

PROMPTS = [f"question {number}" for number in range(COUNT)]
COMPLETIONS = ["a" * (number + 1) for number in range(COUNT)]
RIGHT = [float(number + 1) for number in range(COUNT)]


def _document(number: int) -> dict[str, Any]:
    sample = {
        "prompt": PROMPTS[number],
        "completion": COMPLETIONS[number],
        "columns": {"number": number},
    }
    return {"version": 1, "reward": "judge", "step": 0, "samples": [sample]}


@contextmanager
def ours(url: str) -> Iterator[Scorer]:
    """Score as the trainer does."""
    reward = Reward.model_validate({"name": "judge", "http": {"url": url}})
    samples = Samples(
        list(PROMPTS), list(COMPLETIONS), [[1]] * COUNT, {"number": list(range(COUNT))}
    )
    with Panel.open([reward]) as panel:
        yield lambda: [item.score or 0.0 for item in panel.score(samples)["judge"].items]


@contextmanager
def serial(url: str) -> Iterator[Scorer]:
    """Score one completion after the other."""
    with httpx2.Client(trust_env=False) as client:

        def one(number: int) -> float:
            headers = {"Idempotency-Key": str(uuid.uuid4())}
            while True:
                answer = client.post(url, json=_document(number), headers=headers)
                if answer.status_code == httpx2.codes.OK:
                    return float(answer.json()["scores"][0])

        yield lambda: [one(number) for number in range(COUNT)]


@contextmanager
def trl(url: str) -> Iterator[Scorer]:
    """Score by an async reward function of TRL's; the trainer around it is not needed."""
    thread, loop, ready = start_event_loop_in_daemon()
    ready.wait()

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=COUNT))

    session = asyncio.run_coroutine_threadsafe(open_session(), loop).result()

    async def one(number: int) -> float:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        wait = FIRST_WAIT_SECONDS
        while True:
            async with session.post(url, json=_document(number), headers=headers) as answer:
                if answer.status == 200:
                    return float((await answer.json())["scores"][0])
            await asyncio.sleep(random.uniform(0, wait))
            wait *= 2

    async def judge(number: list[int], **_: Any) -> list[float]:
        return list(await asyncio.gather(*map(one, number)))

    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu"), is_main_process=True),
        args=SimpleNamespace(report_to=[]),
        state=SimpleNamespace(global_step=0),
        environments=None,
        reward_funcs=[judge],
        reward_processing_classes=[None],
        reward_func_names=["judge"],
        async_loop=loop,
        _log_completion_extra=None,
        _log_metric=None,
    )
    inputs = [{"number": number} for number in range(COUNT)]

    def score() -> list[float]:
        ids = [[1]] * COUNT
        found = GRPOTrainer._calculate_rewards(trainer, inputs, PROMPTS, COMPLETIONS, ids)
        return [float(value) for value in found[:, 0]]

    try:
        yield score
    finally:
        asyncio.run_coroutine_threadsafe(session.close(), loop).result()
        shutdown_event_loop_in_daemon(thread, loop)


@contextmanager
def judge_service() -> Iterator[str]:
    """Run the service; yield its URL."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "harness" / "judge.py"), str(port)]
    )
    url = f"http://127.0.0.1:{port}/score"
    try:
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=10)) as client:
            client.get(url)
        yield url
    finally:
        server.kill()
        server.wait()


def seconds(scorer: Scorer) -> float:
    """Return how long a batch takes; its scores must be right."""
    started = time.monotonic()
    assert scorer() == RIGHT
    return time.monotonic() - started


def main() -> int:
    """Measure, print and tell whether the bars hold."""
    arguments = command_line(__doc__, rounds=9).parse_args()
    with judge_service() as url, ours(url) as own, serial(url) as one, trl(url) as other:
        scorers = {"ours": own, "serial": one, "trl": other}
        for warm in (own, other):
            warm()
        rounds = []
        for number in range(arguments.rounds):
            order = list(scorers)[:: 1 if number % 2 == 0 else -1]
            rounds.append({name: seconds(scorers[name]) for name in order})
    medians = {name: statistics.median(row[name] for row in rounds) for name in scorers}
    to_serial, to_trl = (medians["ours"] / medians[name] for name in ("serial", "trl"))
    print(
        f"{COUNT} items of 100 ms, retries included: {medians['ours'] * 1000:.0f} ms; "
        f"serial {medians['serial'] * 1000:.0f} ms: {to_serial:.3f}x (bar {SERIAL_BAR}x); "
        f"TRL's async path {medians['trl'] * 1000:.0f} ms: {to_trl:.2f}x (bar {TRL_BAR}x)"
    )
    save({"medians": medians, "rounds": rounds}, arguments.json)
    return 0 if to_serial <= SERIAL_BAR and to_trl <= TRL_BAR else 1


if __name__ == "__main__":
    sys.exit(main())

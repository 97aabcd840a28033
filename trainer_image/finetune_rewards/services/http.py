"""A reward that a service gives over HTTP; docs/reward-openapi.yaml is its interface.

Of what comes back only a finite number is a score.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import aiohttp

from finetune_contract.foreign import Unreadable, parse
from finetune_contract.rewards import Reward
from finetune_rewards.scores.answers import LONGEST_ERROR, error, items
from finetune_rewards.scores.blame import struck
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Answer, Item, Samples
from finetune_rewards.services.circuit import Circuit, Note, Unanswered, Waits
from finetune_rewards.services.exchange import BadAnswer, bounded, session, spoken, unreached
from finetune_rewards.services.service_secret import BadSecret, ServiceSecret
from finetune_rewards.services.together import together

Told = Callable[[int, int], None]  # that the completions from one up to another are answered

VERSION = 1
MOST_BYTES = 4 * 2**20  # of one answer
IDEMPOTENCY_KEY = "Idempotency-Key"

# Beside 5xx: what whoever minds the service or its Secret can mend while the run waits.
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_UNANSWERED = (*_BUSY, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_TIMEOUT)


@dataclass(frozen=True)
class _Request:
    """A batch as it is sent, and sent again: the key tells the service that it is the same."""

    samples: Samples
    body: bytes
    key: str = field(default_factory=lambda: str(uuid.uuid4()))


class HttpScorer:
    """Scores through one service, in the event loop that it is made in."""

    def __init__(
        self,
        reward: Reward,
        *,
        credentials_dir: str | None,
        ranks: int,
        note: Note,
        waits: Waits | None = None,
    ) -> None:
        """Raise RewardInvalid if the credentials can not be used."""
        assert reward.http is not None
        self._reward, self._settings = reward, reward.http
        self._secret = ServiceSecret(credentials_dir, "http.credentialsSecretRef")
        try:
            self._secret.token()
            trusted = self._secret.trust()
        except BadSecret as problem:
            raise RewardInvalid(f"reward {reward.name}: {problem}") from problem
        self._circuit = Circuit(
            reward.name,
            self._send,
            at_once=max(1, self._settings.concurrency // ranks),
            retries=self._settings.retries,
            pause_seconds=self._settings.pause_seconds,
            note=note,
            waits=waits,
        )
        self._session = session(trusted, self._settings.timeout_seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def score(self, samples: Samples, told: Told = lambda _start, _stop: None) -> Answer:
        """Return an item per completion; waits while the service is down. Each part is `told` of.

        Raises:
            RewardUnavailable: if that took longer than the reward's pauseSeconds.
        """
        started, size = time.monotonic(), self._settings.batch_size

        async def part(start: int) -> list[Item]:
            found = await self._part(samples.slice(start, start + size))
            told(start, start + size)
            return found

        answers = await together([part(start) for start in range(0, len(samples), size)])
        found = [item for answer in answers for item in answer]
        return Answer(found, time.monotonic() - started)

    async def _part(self, samples: Samples) -> list[Item]:
        request = _Request(samples, _body(self._reward.name, samples))
        try:
            return await self._circuit.ask(request)
        except Unanswered as problem:
            return [error(f"no answer: {problem}")] * len(samples)

    async def _send(self, request: _Request) -> list[Item]:
        """Send a request once, and judge what comes back."""
        try:
            return _items(await self._exchange(request), request.samples)
        except TimeoutError:
            limit = f"{self._settings.timeout_seconds:g}"
            raise Unanswered(f"no answer within {limit} s") from None
        except aiohttp.ClientConnectorError as problem:
            raise Unanswered(unreached(problem)) from problem
        except aiohttp.ClientError as problem:
            raise Unanswered(type(problem).__name__) from problem
        except BadAnswer as problem:
            return [error(str(problem))] * len(request.samples)

    async def _exchange(self, request: _Request) -> bytes:
        """Return the content of an answer; raise Unanswered where another try may help."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            IDEMPOTENCY_KEY: request.key,
        }
        try:
            token = self._secret.token()
        except BadSecret as problem:  # it was good at the start, and may be so again
            raise Unanswered(str(problem)) from problem
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self._session.post(
            self._settings.url, data=request.body, headers=headers, allow_redirects=False
        ) as answer:
            status = answer.status
            if status in _UNANSWERED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                wish = _retry_after(answer.headers)
                raise Unanswered(spoken(status), wish, busy=status in _BUSY)
            if status != HTTPStatus.OK:
                raise BadAnswer(f"the service answered {spoken(status)}")
            return await bounded(answer, MOST_BYTES)


def _body(name: str, samples: Samples) -> bytes:
    """Return one request's document."""
    rows = [
        {
            "prompt": samples.prompts[index],
            "completion": samples.completions[index],
            "columns": {column: values[index] for column, values in samples.columns.items()},
        }
        for index in range(len(samples))
    ]
    document = {"version": VERSION, "reward": name, "step": samples.step, "samples": rows}
    return json.dumps(document).encode()


def _items(content: bytes, samples: Samples) -> list[Item]:
    """Return the items of an answer; those that the service calls errors are errors.

    What it says of them goes on without what it quotes of the rows.
    """
    try:
        document = parse(content, any_number=True)
    except Unreadable as problem:
        raise BadAnswer(f"the answer {problem}") from None
    if not isinstance(document, dict) or "scores" not in document:
        raise BadAnswer("the answer is no object with scores")
    errors = document.get("errors") or {}
    if not isinstance(errors, dict):
        raise BadAnswer("errors of the answer is no object")
    found = items(document["scores"], len(samples))
    for index in range(len(found)):
        if (key := str(index)) in errors:
            said = struck(str(errors[key])[:LONGEST_ERROR], samples)
            found[index] = error(f"the service says: {said}")
    return found


def _retry_after(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds of Retry-After, a number or a date (RFC 9110, section 10.2.3)."""
    value = str(headers.get("Retry-After", ""))
    try:
        if value.isdecimal():
            return float(value)
        at = parsedate_to_datetime(value)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None

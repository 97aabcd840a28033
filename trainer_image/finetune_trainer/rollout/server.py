"""A server with OpenAI's completions API that loads LoRA adapters while it runs, as vLLM does.

https://docs.vllm.ai/en/latest/features/lora.html (dynamic serving) and the extra parameters of
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

import logging
import ssl
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import aiohttp
from anyio.from_thread import start_blocking_portal
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from finetune_contract.foreign import Unreadable, parse, printable
from finetune_contract.model import canonical_json
from finetune_contract.reasons import Reason
from finetune_rewards.services.exchange import BadAnswer, bounded, session, spoken, unreached
from finetune_rewards.services.service_secret import BadSecret, ServiceSecret
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import waiting

log = logging.getLogger(__name__)

LOAD, UNLOAD, COMPLETE = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"
CONNECT_SECONDS = 10.0
WORDS = 300  # characters of the server's own that are passed on
# Of an answer: of any; for each token that may be drawn, whose text stands in it beside its id; for
# each of the prompt, whose id does.
MOST_BYTES, BYTES_A_TOKEN, BYTES_A_PROMPT_TOKEN = 2**20, 1024, 16
ASKED_OF = "it must be vLLM, or speak as it does"
# Beside 5xx: what whoever minds the server or its Secret can mend while the run waits.
BUSY = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class Limits(NamedTuple):
    """How a server is asked; times are in seconds."""

    # What HTTP rewards wait by default: a server that is started anew has large weights to load.
    pause: float = 1800.0
    longest: float = 15.0  # between two tries
    poll: float = 0.5  # between two agreements of all ranks
    requests: int = 64  # of a rank under way
    answer: float = 600.0  # for a whole answer


class _Busy(Exception):
    """No answer, or one that may be another later."""


class _Answer(NamedTuple):
    status: int
    content: bytes
    words: str  # the status, and what the server says of it

    @property
    def good(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


class Server:
    """Asks from any thread. `close` gives up what is under way, and nothing more is sent.

    `waits_for` tells why it has to be asked again, None once it answers.
    """

    def __init__(
        self, uri: str, secret: ServiceSecret, trusted: ssl.SSLContext, limits: Limits
    ) -> None:
        self.waits_for: str | None = None
        self._uri = uri.rstrip("/")
        self._secret, self._limits = secret, limits
        self._closed = Event()
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._session = self._portal.call(session, trusted, limits.answer, CONNECT_SECONDS)

    def load(self, name: str, directory: Path) -> None:
        """Make an adapter known by a name, in place of what bore it. Raises RolloutUnavailable."""
        self.unload(name)
        body = {"lora_name": name, "lora_path": str(directory)}
        answer = self._call(LOAD, body, ignored=(404,))
        if answer.status == HTTPStatus.NOT_FOUND:
            raise self._unavailable(
                LOAD,
                f"{answer.words}; vLLM loads adapters if it runs with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, from a directory that it shares",
            )

    def unload(self, name: str) -> None:
        """Forget an adapter, if the server knows it. Raises RolloutUnavailable."""
        # Of a name that it does not know vLLM says 404, and older versions 400.
        self._call(UNLOAD, {"lora_name": name}, ignored=(400, 404))

    def complete(self, body: dict[str, Any], directory: Path) -> dict[str, Any]:
        """Return the only choice of a completion by the adapter that lies in a directory.

        Raises RolloutUnavailable.
        """
        most = MOST_BYTES + BYTES_A_TOKEN * body["max_tokens"]
        most += BYTES_A_PROMPT_TOKEN * len(body["prompt"])
        answer = self._call(COMPLETE, body, ignored=(404,), most=most)
        if answer.status == HTTPStatus.NOT_FOUND:
            # A server that was started anew knows no adapter; 400 says that another was faster.
            again = {"lora_name": body["model"], "lora_path": str(directory)}
            self._call(LOAD, again, ignored=(400,))
            answer = self._call(COMPLETE, body, most=most)
        try:
            document = parse(answer.content, any_number=True)
        except Unreadable as error:
            raise self._unavailable(COMPLETE, f"its answer {error}; {ASKED_OF}") from error
        match document:
            case {"choices": [dict(choice)]}:
                return choice
        raise self._unavailable(COMPLETE, f"its answer holds no choice; {ASKED_OF}")

    def close(self) -> None:
        """Give up all that is under way."""
        self._closed.set()
        self._portal.call(self._session.close)
        self._portal.call(self._portal.stop, True)
        self._stack.close()

    def _call(
        self,
        path: str,
        body: dict[str, Any],
        ignored: tuple[int, ...] = (),
        most: int = MOST_BYTES,
    ) -> _Answer:
        retrying = Retrying(
            stop=stop_after_delay(self._limits.pause) | stop_when_event_set(self._closed),
            wait=wait_random_exponential(max=self._limits.longest),
            sleep=sleep_using_event(self._closed),
            retry=retry_if_exception_type(_Busy),
            before_sleep=self._waits,
            retry_error_callback=lambda state: self._gave_up(path, state),
        )
        content = canonical_json(body).encode()
        longest = self._limits.pause + self._limits.longest + self._limits.answer
        try:
            with waiting(longest):
                answer: _Answer = retrying(self._portal.call, self._asked, path, content, most)
        except BadAnswer as problem:
            raise self._unavailable(path, f"{problem}; {ASKED_OF}") from problem
        if answer.good or answer.status in ignored:
            return answer
        raise self._unavailable(path, answer.words)

    async def _asked(self, path: str, content: bytes, most: int) -> _Answer:
        try:
            answer = await self._exchange(path, content, most)
        except TimeoutError as problem:
            raise _Busy(str(problem) or f"no answer within {self._limits.answer:g} s") from problem
        except aiohttp.ClientConnectorError as problem:
            raise _Busy(unreached(problem)) from problem
        except aiohttp.ClientError as problem:
            raise _Busy(type(problem).__name__) from problem
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in BUSY:
            raise _Busy(answer.words)
        self.waits_for = None
        return answer

    async def _exchange(self, path: str, content: bytes, most: int) -> _Answer:
        try:
            token = self._secret.token()  # anew each time, since Secrets are rotated
        except BadSecret as problem:  # it was good at the start, and may be so again
            raise _Busy(str(problem)) from problem
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self._session.post(
            self._uri + path, data=content, headers=headers, allow_redirects=False
        ) as answer:
            try:
                found = await bounded(answer, most)
            except BadAnswer:
                if answer.ok:
                    raise
                found = b""  # the status says enough
            return _Answer(answer.status, found, _words(answer.status, found, token))

    def _waits(self, state: RetryCallState) -> None:
        note = f"waits for the server of grpo.rollout.uri: {_cause(state)}"
        if self.waits_for is None:  # not with every request
            log.warning("%s", note)
        self.waits_for = note

    def _gave_up(self, path: str, state: RetryCallState) -> _Answer:
        raise self._unavailable(path, f"{_cause(state)}, for {self._limits.pause:.0f} s")

    def _unavailable(self, path: str, words: str) -> Failure:
        return Failure(Reason.ROLLOUT_UNAVAILABLE, f"grpo.rollout.uri: {self._uri}{path}: {words}")


def _cause(state: RetryCallState) -> str:
    assert state.outcome is not None
    error = state.outcome.exception()
    return str(error) or type(error).__name__


def _words(status: int, content: bytes, token: str | None) -> str:
    """Return the status and the server's own words, such as vLLM's `error.message`."""
    try:
        said = parse(content, any_number=True)
    except Unreadable:
        said = content.decode(errors="replace")
    match said:
        case {"error": {"message": message}} | {"message": message}:
            said = message
    words = spoken(status) if not said else f"{status} {said}"
    return printable(words.replace(token, "…") if token else words, WORDS)

"""A server with OpenAI's completions API that loads LoRA adapters while it runs, as vLLM does.

https://docs.vllm.ai/en/latest/features/lora.html (dynamic serving) and the extra parameters of
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

import logging
import ssl
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import httpx2
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from finetune_contract.reasons import Reason
from finetune_rewards.services.service_secret import BadSecret, ServiceSecret
from finetune_trainer.process.errors import Failure

log = logging.getLogger(__name__)

LOAD, UNLOAD, COMPLETE = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 600.0
WORDS = 300  # characters of the server's own that are passed on
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


class _Busy(Exception):
    """An answer that may be another one later."""


class Server:
    """Asks from any thread. After `close` nothing more is sent; what is under way takes its time.

    `waits_for` tells why it has to be asked again, None once it answers.
    """

    def __init__(
        self, uri: str, secret: ServiceSecret, trusted: ssl.SSLContext, limits: Limits
    ) -> None:
        self.waits_for: str | None = None
        self._uri = uri.rstrip("/")
        self._secret, self._limits = secret, limits
        self._closed = Event()
        self._client = httpx2.Client(
            verify=trusted,
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=limits.requests),
            trust_env=False,  # a proxy of the environment would see prompts and token
        )

    def load(self, name: str, directory: Path) -> None:
        """Make an adapter known by a name, in place of what bore it. Raises RolloutUnavailable."""
        self.unload(name)
        body = {"lora_name": name, "lora_path": str(directory)}
        answer = self._call(LOAD, body, ignored=(404,))
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise self._unavailable(
                LOAD,
                f"{_words(answer)}; vLLM loads adapters if it runs with --enable-lora and "
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
        answer = self._call(COMPLETE, body, ignored=(404,))
        if answer.status_code == HTTPStatus.NOT_FOUND:
            # A server that was started anew knows no adapter; 400 says that another was faster.
            again = {"lora_name": body["model"], "lora_path": str(directory)}
            self._call(LOAD, again, ignored=(400,))
            answer = self._call(COMPLETE, body)
        try:
            [choice] = answer.json()["choices"]
            return dict(choice)
        except (ValueError, KeyError, TypeError) as error:
            raise self._unavailable(COMPLETE, "its answer holds no choice") from error

    def close(self) -> None:
        """Give up all that is under way."""
        self._closed.set()
        self._client.close()

    def _call(
        self, path: str, body: dict[str, Any], ignored: tuple[int, ...] = ()
    ) -> httpx2.Response:
        retrying = Retrying(
            stop=stop_after_delay(self._limits.pause) | stop_when_event_set(self._closed),
            wait=wait_random_exponential(max=self._limits.longest),
            sleep=sleep_using_event(self._closed),
            retry=retry_if_exception_type((_Busy, httpx2.TransportError)),
            before_sleep=self._waits,
            retry_error_callback=lambda state: self._gave_up(path, state),
        )
        answer: httpx2.Response = retrying(self._post, path, body)
        if answer.is_success or answer.status_code in ignored:
            return answer
        raise self._unavailable(path, _words(answer))

    def _post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        answer = self._client.post(self._uri + path, json=body, headers=self._headers())
        if answer.is_server_error or answer.status_code in BUSY:
            raise _Busy(_words(answer))
        self.waits_for = None
        return answer

    def _headers(self) -> dict[str, str]:
        """Return the bearer token's header; read anew each time, since Secrets are rotated."""
        try:
            token = self._secret.token()
        except BadSecret as problem:  # it was good at the start, and may be so again
            raise _Busy(str(problem)) from problem
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def _waits(self, state: RetryCallState) -> None:
        note = f"waits for the server of grpo.rollout.uri: {_cause(state)}"
        if self.waits_for is None:  # not with every request
            log.warning("%s", note)
        self.waits_for = note

    def _gave_up(self, path: str, state: RetryCallState) -> httpx2.Response:
        raise self._unavailable(path, f"{_cause(state)}, for {self._limits.pause:.0f} s")

    def _unavailable(self, path: str, words: str) -> Failure:
        return Failure(Reason.ROLLOUT_UNAVAILABLE, f"grpo.rollout.uri: {self._uri}{path}: {words}")


def _cause(state: RetryCallState) -> str:
    assert state.outcome is not None
    error = state.outcome.exception()
    return str(error) or type(error).__name__


def _words(answer: httpx2.Response) -> str:
    """Return status and the server's own words, such as vLLM's `error.message`."""
    said = answer.text
    try:
        body = answer.json()
        said = body["error"]["message"] if "error" in body else body["message"]
    except (ValueError, KeyError, TypeError):
        pass  # not vLLM's form: the text as it is
    return f"{answer.status_code} {said}".strip()[:WORDS]

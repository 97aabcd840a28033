"""A server with OpenAI's completions API that loads LoRA adapters while it runs, as vLLM does.

https://docs.vllm.ai/en/latest/features/lora.html (dynamic serving) and the extra parameters of
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any

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
from finetune_trainer.errors import Failure

LOAD, UNLOAD, COMPLETE = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"
TOKEN = "token"  # noqa: S105 - the key's name in the Secret
CONNECT_SECONDS = 10.0
# All of it well below the time-out of the training processes' collectives.
ANSWER_SECONDS = 600.0
RETRY_SECONDS = 300.0
LONGEST_PAUSE = 15.0
WORDS = 300  # characters of the server's own that are passed on
BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class _Busy(Exception):
    """An answer that may be another one later."""


class Server:
    """Asks from any thread; after `close` nothing more is sent, and what is under way fails."""

    def __init__(self, uri: str, credentials_dir: str | None, connections: int) -> None:
        self._uri = uri.rstrip("/")
        self._credentials_dir = credentials_dir
        self._closed = Event()
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=connections),
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

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the only choice of a completion. Raises RolloutUnavailable."""
        answer = self._call(COMPLETE, body)
        try:
            [choice] = answer.json()["choices"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._unavailable(COMPLETE, "its answer holds no choice") from error
        if not isinstance(choice, dict):
            raise self._unavailable(COMPLETE, "its answer holds no choice")
        return choice

    def close(self) -> None:
        """Give up all that is under way."""
        self._closed.set()
        self._client.close()

    def _call(
        self, path: str, body: dict[str, Any], ignored: tuple[int, ...] = ()
    ) -> httpx2.Response:
        retrying = Retrying(
            stop=stop_after_delay(RETRY_SECONDS) | stop_when_event_set(self._closed),
            wait=wait_random_exponential(max=LONGEST_PAUSE),
            sleep=sleep_using_event(self._closed),
            retry=retry_if_exception_type((_Busy, httpx2.TransportError)),
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
        return answer

    def _headers(self) -> dict[str, str]:
        """Return the bearer token's header; read anew each time, since Secrets are rotated."""
        if self._credentials_dir is None:
            return {}
        try:
            token = Path(self._credentials_dir, TOKEN).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise Failure(
                Reason.ROLLOUT_UNAVAILABLE,
                f"the Secret of grpo.rollout.credentialsSecretRef has no key {TOKEN!r}",
            ) from None
        return {"Authorization": f"Bearer {token}"}

    def _gave_up(self, path: str, state: RetryCallState) -> httpx2.Response:
        assert state.outcome is not None
        error = state.outcome.exception()
        words = str(error) or type(error).__name__
        raise self._unavailable(path, f"{words}, for {RETRY_SECONDS:.0f} s") from error

    def _unavailable(self, path: str, words: str) -> Failure:
        return Failure(
            Reason.ROLLOUT_UNAVAILABLE, f"grpo.rollout.uri: {self._uri}{path}: {words[:WORDS]}"
        )


def _words(answer: httpx2.Response) -> str:
    """Return status and the server's own words, such as vLLM's `error.message`."""
    said = answer.text
    try:
        body = answer.json()
        said = body["error"]["message"] if "error" in body else body["message"]
    except (ValueError, KeyError, TypeError):
        pass  # not vLLM's form: the text as it is
    return f"{answer.status_code} {said}".strip()

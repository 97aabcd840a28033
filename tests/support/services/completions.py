"""A server that speaks as much of vLLM's API as the trainer asks for, and checks every field.

Completions are a function of prompt and seed. What it takes and answers follows vLLM 0.11's
`entrypoints/openai` (protocol, serving_models).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from ssl import SSLContext
from threading import Event, Lock
from typing import Any

from support.services.loopback import listening

FIELDS = {
    "model": str,
    "prompt": list,
    "n": int,
    "seed": int,
    "max_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "stop": list,
    "stop_token_ids": list,
    "skip_special_tokens": bool,
    "return_token_ids": bool,
    "stream": bool,
}
Answer = tuple[int, Any]


class CompletionsServer:
    """Adapters by name, and a record of what came."""

    def __init__(self) -> None:
        self.url = ""
        self.adapters: dict[str, dict[str, Any]] = {}  # adapter_config.json and tensors' names
        self.history: list[tuple[str, str]] = []  # what was loaded and unloaded
        self.requests: list[dict[str, Any]] = []
        self.authorizations: set[str | None] = set()
        self.tokens: set[str] | None = None  # that it lets in, if not all
        self.failures: Counter[str] = Counter()  # answers 503 that are still to come, by path
        self.refusal: Answer | None = None  # answered to completions, if set
        self.changes: dict[str, Any] = {}  # of every choice
        self.hang: Event | None = None
        self.trickles = False  # byte by byte, without an end
        self.runtime_updates = True
        self.load_status: int | None = None  # of what it loads, if not its own
        self.most_at_once = 0
        self._at_once = 0
        self._lock = Lock()

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        """Return status and body."""
        with self._lock:
            if self.failures[path] > 0:
                self.failures[path] -= 1
                return 503, {"error": {"message": "starting", "code": 503}}
        match path:
            case "/v1/load_lora_adapter" if self.runtime_updates:
                status, said = self._load(body["lora_name"], Path(body["lora_path"]))
                return self.load_status or status, said
            case "/v1/unload_lora_adapter" if self.runtime_updates:
                return self._unload(body["lora_name"])
            case "/v1/completions":
                return self._complete(body)
        return 404, {"detail": "Not Found"}

    def _load(self, name: str, directory: Path) -> Answer:
        from safetensors import safe_open

        if name in self.adapters:
            return 400, {
                "error": {"message": f"The lora adapter '{name}' has already been loaded."}
            }
        config = json.loads((directory / "adapter_config.json").read_text())
        with safe_open(directory / "adapter_model.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        self.adapters[name] = {"config": config, "tensors": tensors}
        self.history.append(("load", name))
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, name: str) -> Answer:
        if self.adapters.pop(name, None) is None:
            return 404, {"error": {"message": f"The lora adapter '{name}' cannot be found."}}
        self.history.append(("unload", name))
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def _complete(self, body: dict[str, Any]) -> Answer:
        with self._lock:
            self.requests.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.hang is not None:
                self.hang.wait()
            return self.refusal or self._choice(body)
        finally:
            with self._lock:
                self._at_once -= 1

    def _choice(self, body: dict[str, Any]) -> Answer:
        odd = [k for k, kind in FIELDS.items() if type(body.get(k)) is not kind]
        odd += list(body.keys() - FIELDS.keys())
        if odd:
            return 400, {"error": {"message": f"fields {odd}"}}
        if body["model"] not in self.adapters:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        tokens = expected_tokens(body["prompt"], body["seed"], body["max_tokens"])
        choice = {
            "index": 0,
            "text": "",
            "logprobs": None,
            "finish_reason": "length" if len(tokens) == body["max_tokens"] else "stop",
            "stop_reason": None,
            "token_ids": tokens,
            "prompt_token_ids": body["prompt"],
            **self.changes,
        }
        return 200, {"object": "text_completion", "model": body["model"], "choices": [choice]}


def expected_tokens(prompt: list[int], seed: int, most: int) -> list[int]:
    """Return the completion of a prompt."""
    return [(seed + sum(prompt) + i) % 200 for i in range(1 + seed % most)]


def serving(
    server: CompletionsServer, tls: SSLContext | None = None
) -> AbstractContextManager[None]:
    """Serve on a loopback port; sets the server's url."""
    return listening(server, _Handler, tls)


class _Handler(BaseHTTPRequestHandler):
    own: CompletionsServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.own.authorizations.add(self.headers.get("Authorization"))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.own.tokens is None or token in self.own.tokens:
            status, answer = self.own.answer(self.path, body)
        else:
            status, answer = 401, {"error": "Unauthorized"}
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Location", self.path)
        with contextlib.suppress(OSError):  # it may be left before it is done
            if self.own.trickles:
                self._trickle()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def _trickle(self) -> None:
        self.end_headers()
        while True:
            self.wfile.write(b" ")
            time.sleep(0.05)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

"""Completions by a server that is given each step's adapter through a shared directory.

Rank 0 writes the adapter below `<adapterDirectory>/<job uid>/` and has it loaded; what lies there
tells which ones the server may know, of earlier attempts too. Each rank asks for its own
completions. The server's sampling is its own: the same request may be answered
otherwise another time, and the loss takes the training model's probabilities for what was drawn.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from finetune_contract.artifact import ModelIdentity
from finetune_contract.foreign import printable
from finetune_contract.grpo import Sampling
from finetune_contract.reasons import Reason
from finetune_rewards.services.service_secret import BadSecret, ServiceSecret
from finetune_trainer.adapter.export import save_adapter
from finetune_trainer.adapter.lora import adapted_weights
from finetune_trainer.adapter.serving import vllm_obstacles
from finetune_trainer.course.progress import note_of_ranks
from finetune_trainer.model.generation import stop_tokens
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.base import Completion, Request
from finetune_trainer.rollout.sampling import sample_seed
from finetune_trainer.rollout.server import Limits, Server
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine
from finetune_trainer.store.appearing import appearing

LONGEST_WORD = 40  # characters of the server's that are passed on


class OpenAIEngine:
    """Asks a server with OpenAI's API in vLLM's flavour.

    Raises Failure(ModelUnsupported) where vLLM would load the adapter and not apply it, and
    Failure(AccessDenied) for a Secret that can not be used.
    """

    limits = Limits()

    def __init__(
        self, run: ResolvedRun, sampling: Sampling, engine: Engine, model: Any, tokenizer: Any
    ) -> None:
        recipe, layout = run.config.recipe, run.config.layout
        assert layout.rollout is not None
        assert layout.rollout.uri is not None, "the API sees to it"
        assert layout.rollout.adapter_directory is not None
        self._sampling = sampling
        self._seed = recipe.training.seed
        self._engine = engine
        self._model = model
        self._ranks = run.ranks
        self._reporter = run.reporter
        self._identity = ModelIdentity(uri=recipe.model.uri, revision=recipe.model.revision or "")
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._stop_tokens = sorted(stop_tokens(model.get_base_model(), tokenizer))
        self._directory = Path(layout.rollout.adapter_directory, layout.job.uid)
        self._attempt = layout.attempt
        self._uri = layout.rollout.uri
        self._secret = ServiceSecret(
            layout.credentials.rollout, "grpo.rollout.credentialsSecretRef"
        )
        try:
            self._secret.token()
            self._trusted = self._secret.trust()
        except BadSecret as problem:
            raise Failure(Reason.ACCESS_DENIED, str(problem)) from problem
        self._served: int | None = None  # the step whose adapter the server has
        weights = adapted_weights(model)
        obstacles = vllm_obstacles(model.config.model_type, recipe.lora, weights)
        if obstacles:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                "grpo.rollout.engine OpenAI: vLLM can not draw with this adapter: "
                f"{'; '.join(obstacles)}; use engine Builtin",
            )

    def draw(
        self,
        requests: Sequence[Request],
        step: int,
        stops: Callable[[], bool],
        on_done: Callable[[int], None],
    ) -> list[list[Completion]] | None:
        """Return each request's completions, in order; None where a stop came."""
        server = Server(self._uri, self._secret, self._trusted, self.limits)
        pool = ThreadPoolExecutor(self.limits.requests, thread_name_prefix="rollout")
        try:
            if not self._serve(server, pool, step, stops):
                return None
            asked = [
                [
                    pool.submit(self._ask, server, request, request.first + sample)
                    for sample in range(request.samples)
                ]
                for request in requests
            ]
            futures = [future for group in asked for future in group]
            if not self._wait(server, futures, stops, on_done):
                return None
            return [[future.result() for future in group] for group in asked]
        finally:
            server.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def _wait(
        self,
        server: Server,
        futures: Sequence[Future[Any]],
        stops: Callable[[], bool],
        on_done: Callable[[int], None],
    ) -> bool:
        """Wait beside the other ranks; tell whether all came to the end.

        Progress tells what any waits for. All raise the lowest failing rank's failure.
        """
        waited = set(futures)

        def busy() -> tuple[bool, str | None]:
            nonlocal waited
            done, waited = wait(waited, self.limits.poll)
            for future in done:
                future.result()
            if done:
                on_done(len(done))
            return bool(waited), server.waits_for

        while not stops():
            told = self._ranks.everywhere(busy)
            self._reporter.noted("rollout", note_of_ranks(note for _, note in told))
            if not any(goes_on for goes_on, _ in told):
                return True
        return False

    def _serve(self, server: Server, pool: Executor, step: int, stops: Callable[[], bool]) -> bool:
        """Have the server load the adapter as it stands, a step's once; tell whether it has it."""
        if self._served == step:
            return True
        with self._engine.gathered():
            self._ranks.lead(lambda: self._write(step))
        loading = [pool.submit(self._load, server, step)] if self._ranks.is_lead else []
        if not self._wait(server, loading, stops, lambda _: None):
            return False
        self._served = step
        return True

    def _write(self, step: int) -> None:
        """Write the adapter whole before it bears its name."""
        target = self._place(step)
        shutil.rmtree(target, ignore_errors=True)
        try:
            with appearing(target) as partial:
                partial.mkdir(parents=True)
                save_adapter(self._model, self._identity, partial)
        except OSError as error:
            raise Failure(
                Reason.ROLLOUT_UNAVAILABLE,
                f"grpo.rollout.adapterDirectory: {target} can not be written: {error.strerror}",
            ) from error

    def _load(self, server: Server, step: int) -> None:
        """Load this step's adapter; forget and delete all others of the job."""
        server.load(self._name(step), self._place(step))
        for left in self._directory.iterdir():
            if left != self._place(step):
                server.unload(self._served_as(left))
                shutil.rmtree(left, ignore_errors=True)

    def _place(self, step: int) -> Path:
        return self._directory / f"a{self._attempt}-step-{step}"

    def _name(self, step: int) -> str:
        return self._served_as(self._place(step))

    def _served_as(self, place: Path) -> str:
        return f"{self._directory.name}-{place.name}"

    def _ask(self, server: Server, request: Request, sample: int) -> Completion:
        sampling = self._sampling
        assert self._served is not None
        choice = server.complete(
            {
                "model": self._name(self._served),
                "prompt": request.prompt.tolist(),
                "n": 1,
                "seed": sample_seed(self._seed, request.key, sample),
                "max_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                # A server takes these from the model's generation_config unless it is told.
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
                "stop": list(sampling.stop),
                "stop_token_ids": self._stop_tokens,
                "skip_special_tokens": False,  # so that a stop text may be one
                "return_token_ids": True,
                "stream": False,
            },
            self._place(self._served),
        )
        return _completion(choice, request, sampling.max_tokens, self._vocabulary)


def _completion(choice: dict[str, Any], request: Request, most: int, vocabulary: int) -> Completion:
    tokens, read = choice.get("token_ids"), choice.get("prompt_token_ids")
    if not isinstance(tokens, list):
        raise _refused("gives no token ids back; vLLM does from version 0.10.2 on")
    if read is not None and read != request.prompt.tolist():
        raise _refused("read another prompt than it was sent: does it serve the same base model?")
    ended = choice.get("finish_reason")
    if not 1 <= len(tokens) <= most or ended not in ("stop", "length"):
        raise _refused(
            f"ended a completion of {len(tokens)} tokens with finish_reason "
            f"{printable(repr(ended), LONGEST_WORD)}; at most {most} were asked for"
        )
    if any(type(token) is not int or not 0 <= token < vocabulary for token in tokens):
        raise _refused(
            f"gave a token that is none of the base model's {vocabulary}: does it serve the same?"
        )
    return Completion(np.array(tokens, dtype=np.int32), truncated=ended == "length")


def _refused(words: str) -> Failure:
    return Failure(Reason.ROLLOUT_UNAVAILABLE, f"the server of grpo.rollout.uri {words}")

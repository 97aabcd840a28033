"""Completions by the training model itself.

A forward pass is the unit of work: every rank does its own, and after each few all agree whether a
stop came and whether all have finished. Under ZeRO-3, where a forward pass is a collective, a rank
that has finished, or failed, goes on with passes of a single token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune_contract.grpo import Sampling
from finetune_contract.layout import ZeroStage
from finetune_contract.reasons import Reason
from finetune_contract.recipe import Quantization
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.memory.formula import ROLLOUT_SHARE
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.base import Completion, Request
from finetune_trainer.rollout.budget import Kept, Piece, batches, free_bytes
from finetune_trainer.rollout.decoders import Decoder, PlainDecoder, SharedDecoder, attention_for
from finetune_trainer.rollout.endings import Endings
from finetune_trainer.rollout.merged import mergeable_bytes, merged
from finetune_trainer.rollout.probe import undrawable
from finetune_trainer.rollout.sampling import draw_tokens, uniform_noise
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.log_probs import score

log = logging.getLogger(__name__)

PASSES = 8  # between two agreements of all ranks


@dataclass
class _Row:
    """A completion that is being drawn."""

    request: int
    sample: int  # of those that the request wants
    tokens: list[int] = field(default_factory=list)


class BuiltinEngine:
    """Generates with the PEFT model in the training engine, in what memory training leaves."""

    def __init__(
        self, run: ResolvedRun, sampling: Sampling, engine: Engine, model: Any, tokenizer: Any
    ) -> None:
        recipe, free = run.config.recipe, free_bytes(run.resolved.memory)
        self._sampling = sampling
        self._seed = recipe.training.seed
        self._engine = engine
        self._model = model
        self._causal = model.get_base_model()
        self._ranks = run.ranks
        self._endings = Endings(self._causal, tokenizer, self._sampling.stop)
        self._shares = engine.deepspeed.module.packs
        self._gathers = engine.stage is ZeroStage.PARAMETERS
        whole = not self._gathers and recipe.lora.quantization is Quantization.NONE
        copies = mergeable_bytes(model) if whole else 0
        self._merges = whole and copies <= ROLLOUT_SHARE * free
        self._room = int(ROLLOUT_SHARE * (free - copies * self._merges))
        self._kept: Kept | None = None  # once known
        log.info(
            "completions are drawn with the adapter %s, and at most %d MiB of keys and values",
            *("merged" if self._merges else "beside the weights", self._room // 2**20),
        )
        if self._gathers:
            log.warning(
                "under ZeRO-3 the weights are gathered for every token that the built-in rollout "
                "engine draws; an OpenAI-compatible server (grpo.rollout) is faster"
            )

    def draw(
        self,
        requests: Sequence[Request],
        step: int,
        stops: Callable[[], bool],
        on_done: Callable[[int], None],
    ) -> list[list[Completion]] | None:
        """Return each request's completions, in order; None where a stop came."""
        drawn: list[dict[int, Completion]] = [{} for _ in requests]

        def take(row: _Row, truncated: bool) -> None:
            tokens = np.array(row.tokens, dtype=np.int32)
            drawn[row.request][row.sample] = Completion(tokens, truncated)
            on_done(1)

        with self._prepared() as kept:
            if not self._run(self._passes(requests, kept, take), stops):
                return None
        return [[found[sample] for sample in range(len(found))] for found in drawn]

    @contextmanager
    def _prepared(self) -> Iterator[Kept]:
        """Make the model ready to generate, and then to train; yield what it keeps."""
        self._engine.deepspeed.eval()
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                if self._gathers:
                    # A pass through DeepSpeed finds out which layers use others' weights.
                    idle = MicroBatch.idle(self._ranks.device, packed=self._shares)
                    score(self._engine.deepspeed, idle)
                if self._shares:
                    stack.enter_context(attention_for(self._causal))
                if self._merges:
                    stack.enter_context(merged(self._model))
                if self._kept is None:
                    self._kept = self._measured()
                yield self._kept
        finally:
            self._engine.deepspeed.train()

    def _measured(self) -> Kept:
        """Return what is kept, told by prompts of two lengths. Raises ModelUnsupported."""
        one, two = (self._read(tokens) for tokens in (1, 2))
        if two == 0:
            raise undrawable(self._causal.config.model_type, "it keeps nothing of earlier tokens")
        token = max(1, two - one)
        return Kept(token, row=max(0, one - token), shares=self._shares)

    def _read(self, tokens: int) -> int:
        """Do the forward pass of a prompt of so many tokens; return the bytes kept of it."""
        decoder = self._decoder([np.zeros(tokens, np.int32)], [0])
        for _ in decoder.read():
            pass
        return decoder.kept_bytes

    def _decoder(self, prompts: Sequence[Any], owners: Sequence[int]) -> Decoder:
        causal, device = self._causal, self._ranks.device
        if not self._shares:
            return PlainDecoder(causal, prompts, owners, device)
        return SharedDecoder(causal, prompts, owners, self._sampling.max_tokens, device)

    def _run(self, work: Iterator[None], stops: Callable[[], bool]) -> bool:
        """Do this rank's forward passes beside the others'; tell whether all came to the end.

        All raise the lowest failing rank's failure.
        """
        busy = True
        failure: Failure | None = None

        def going() -> bool:
            if failure is not None:
                raise failure
            return busy

        while any(self._ranks.everywhere(going)):
            if stops():
                return False
            for _ in range(PASSES):
                try:
                    busy = busy and next(work, False) is None
                except Failure as found:
                    busy, failure = False, found
                if self._gathers and not busy:
                    self._read(1)
        return True

    def _passes(
        self, requests: Sequence[Request], kept: Kept, take: Callable[[_Row, bool], None]
    ) -> Iterator[None]:
        """Draw all completions, batch after batch; yield after each forward pass."""
        parts = batches(
            [len(request.prompt) for request in requests],
            [request.samples for request in requests],
            self._sampling.max_tokens,
            self._room,
            kept,
        )
        for pieces in parts:
            yield from self._batch(requests, pieces, take)

    def _batch(
        self,
        requests: Sequence[Request],
        pieces: Sequence[Piece],
        take: Callable[[_Row, bool], None],
    ) -> Iterator[None]:
        owners = [index for index, piece in enumerate(pieces) for _ in range(piece.count)]
        decoder = self._decoder([requests[piece.prompt].prompt for piece in pieces], owners)
        read = []
        for part in decoder.read():
            read.append(part)
            yield
        logits = torch.cat(read)[owners]
        rows = [_Row(piece.prompt, sample) for piece in pieces for sample in piece.samples]
        noise = self._noise(requests, rows)
        for place in range(self._sampling.max_tokens):
            tokens = self._tokens(logits, noise[:, place])
            going = self._settle(rows, tokens.tolist(), take)
            if not going:
                return
            if len(going) < len(rows):
                kept = torch.tensor(going, device=tokens.device)
                decoder.keep(kept)
                tokens, noise = tokens[kept], noise[kept]
                rows = [rows[index] for index in going]
            logits = decoder.step(tokens)
            yield

    def _noise(self, requests: Sequence[Request], rows: Sequence[_Row]) -> Tensor:
        """Return the uniform numbers, fp64 [rows, tokens]."""
        numbers = [
            uniform_noise(
                self._seed, request.key, request.first + row.sample, self._sampling.max_tokens
            )
            for row in rows
            for request in [requests[row.request]]
        ]
        return torch.from_numpy(np.stack(numbers)).to(self._ranks.device)

    def _tokens(self, logits: Tensor, noise: Tensor) -> Tensor:
        if not logits.amax(-1).isfinite().all():
            raise Failure(
                Reason.NON_FINITE_LOSS,
                "the model's logits are not finite while completions are drawn",
            )
        return draw_tokens(logits, noise, self._sampling)

    def _settle(
        self, rows: Sequence[_Row], tokens: Sequence[int], take: Callable[[_Row, bool], None]
    ) -> list[int]:
        """Give each row its token, hand over those that end, return which go on."""
        going = []
        for index, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            row.tokens.append(token)
            if self._endings.ended(row.tokens):
                take(row, False)
            elif len(row.tokens) == self._sampling.max_tokens:
                take(row, True)
            else:
                going.append(index)
        return going

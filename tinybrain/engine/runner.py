"""Forward passes for requests: reads a prompt into a cache slot, decodes a batch by one token.

Knows no queue and no thread: who runs when is the engine's decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinybrain.chat import FinishReason
from tinybrain.engine.gpt import GPT
from tinybrain.engine.kv_cache import KVCache
from tinybrain.engine.perplexity import perplexity
from tinybrain.engine.request import Request, SampledToken
from tinybrain.engine.sampler import Sampler


@dataclass(slots=True, eq=False)
class Running:
    """A request with its cache slot, `cached` tokens of which are filled."""

    request: Request
    slot: int
    cached: int
    sampler: Sampler
    tokens_left: int
    before: int
    """The last token in the cache."""
    token: int = -1

    def choose(self, logits: Tensor) -> SampledToken:
        """Choose the next token from logits [V]; the next decode puts it into the cache."""
        sampled = self.sampler.sample(logits)
        self.token = sampled.id
        self.tokens_left -= 1
        return sampled

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why there is nothing more to decode, or None."""
        if self.token in self.request.stop_tokens:
            return "stop"
        return None if self.tokens_left > 0 else "length"


class Runner:
    """A model and its cache."""

    def __init__(self, model: GPT, *, slots: int) -> None:
        weight = model.lm_head.weight
        self._model = model
        self._device = weight.device
        self._cache = KVCache(model.config, slots, dtype=weight.dtype, device=weight.device)

    @property
    def context_length(self) -> int:
        """Most tokens a prompt and its completion may have together."""
        return self._model.config.sequence_len

    @property
    def free_slots(self) -> int:
        """How many more requests can run."""
        return self._cache.free_slots

    def prefill(self, request: Request) -> tuple[Running, float | None, Tensor]:
        """Read a prompt; give the running request, the prompt's perplexity and logits [V]."""
        slot = self._cache.allocate()
        try:
            ids = torch.tensor([request.prompt], device=self._device)
            context = self._cache.rows(ids, slots=[slot], starts=[0], before=[0])
            hidden = self._model(ids, context)[0]
            surprise = perplexity(self._model.logits, hidden, ids[0])
            running = Running(
                request,
                slot,
                cached=len(request.prompt),
                sampler=Sampler(request, self._device),
                tokens_left=min(request.max_tokens, self.context_length - len(request.prompt)),
                before=request.prompt[-1],
            )
            return running, surprise, self._model.logits(hidden[-1])
        except Exception:
            self._cache.release(slot)
            raise

    def decode(self, batch: Sequence[Running]) -> Tensor:
        """Put each request's newest token into the cache; give logits [B, V] for the next."""
        ids = torch.tensor([[running.token] for running in batch], device=self._device)
        context = self._cache.rows(
            ids,
            slots=[running.slot for running in batch],
            starts=[running.cached for running in batch],
            before=[running.before for running in batch],
        )
        logits = self._model.logits(self._model(ids, context)[:, 0])
        for running in batch:
            running.cached += 1
            running.before = running.token
        return logits

    def release(self, running: Running) -> None:
        """Give the request's cache slot back."""
        self._cache.release(running.slot)

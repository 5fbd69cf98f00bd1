"""Forward passes for requests: reads prompts chunk by chunk, decodes a batch by one token.

Knows no queue and no thread: who runs when is the engine's decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinybrain.chat import FinishReason
from tinybrain.engine.kv_cache import KVCache
from tinybrain.engine.model import Model
from tinybrain.engine.perplexity import negative_log_likelihoods, perplexity
from tinybrain.engine.request import PromptRead, Request, SampledToken
from tinybrain.engine.sampler import Sampler
from tinybrain.engine.slots import Slot, Slots


@dataclass(slots=True, eq=False)
class Running:
    """A request that holds a cache slot; `computed` tokens of its prompt were not reused."""

    request: Request
    slot: Slot
    sampler: Sampler
    tokens_left: int
    computed: int = 0

    @property
    def is_reading(self) -> bool:
        """Whether no token has been chosen yet."""
        return len(self.slot.tokens) <= len(self.request.prompt)

    @property
    def prompt_read(self) -> PromptRead:
        """What there is to tell of a prompt that is read."""
        length, nll = len(self.request.prompt), self.slot.nll
        begin, end = self.request.span or (0, 0)
        return PromptRead(
            perplexity(nll[1:length]),
            span_perplexity=perplexity(nll[max(begin, 1) : end]),
            reused=length - self.computed,
        )

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why there is nothing more to decode, or None."""
        if self.slot.tokens[-1] in self.request.stop_tokens:
            return "stop"
        return None if self.tokens_left > 0 else "length"

    def choose(self, logits: Tensor) -> SampledToken:
        """Choose the next token from logits [V]; the next decode puts it into the cache."""
        sampled = self.sampler.sample(logits)
        self.slot.extend([sampled.id], [-sampled.logprob])
        self.tokens_left -= 1
        return sampled


class Runner:
    """A model and its cache; prompts are read by at most `chunk` tokens at once."""

    def __init__(self, model: Model, *, slots: int, chunk: int) -> None:
        self._model = model
        self._device = model.device
        self._chunk = chunk
        self._slots = Slots(slots)
        self._cache = KVCache(model.config, slots, dtype=model.kv_dtype, device=model.device)

    @property
    def context_length(self) -> int:
        """Most tokens a prompt and its completion may have together."""
        return self._model.config.sequence_len

    @property
    def free_slots(self) -> int:
        """How many more requests can run."""
        return self._slots.free

    def start(self, request: Request) -> Running:
        """Give a request a slot; its prompt is still to be read.

        Raises:
            ValueError: No slot is free.
        """
        sampler = Sampler(request, self._device)
        tokens_left = min(request.max_tokens, self.context_length - len(request.prompt))
        running = Running(request, self._slots.acquire(request.prompt), sampler, tokens_left)
        self._reuse(running)
        return running

    def prefill(self, running: Running) -> Tensor | None:
        """Read the next chunk of a prompt; after the last, give logits [V] for the first new token.

        Raises:
            FloatingPointError: The model's logits are not finite.
        """
        self._reuse(running)
        prompt, slot = running.request.prompt, running.slot
        known = len(slot.tokens)
        chunk = prompt[known - 1 : known - 1 + self._chunk]
        predicted = prompt[known : known + self._chunk]
        hidden = self._forward([running], [chunk])[0]
        ids = torch.tensor(predicted, dtype=torch.long, device=self._device)
        front = hidden[: len(predicted)]
        slot.extend(predicted, negative_log_likelihoods(self._model.logits, front, ids))
        running.computed += len(chunk)
        return self._model.logits(hidden[-1:])[0] if len(predicted) < len(chunk) else None

    def decode(self, batch: Sequence[Running]) -> Tensor:
        """Put each request's newest token into the cache; give logits [B, V] for the next."""
        newest = [running.slot.tokens[-1:] for running in batch]
        return self._model.logits(self._forward(batch, newest)[:, 0])

    def release(self, running: Running) -> None:
        """Take back a request's slot; what it has in the cache may serve others."""
        self._slots.release(running.slot)

    def discard(self, running: Running) -> None:
        """Take back the slot of a failed request, in which anything may be, NaN too."""
        self._cache.clear(running.slot.index)
        self._slots.discard(running.slot)

    def _reuse(self, running: Running) -> None:
        # Asked before each chunk: another request may have read on in the same text meanwhile.
        slot, known = running.slot, len(running.slot.tokens)
        other, shared = self._slots.longest_prefix(running.request.prompt, known=known)
        if other is not None:
            missing = slice(known - 1, shared - 1)
            self._cache.copy(missing, source=other.index, target=slot.index)
            slot.extend(other.tokens[known:shared], other.nll[known:shared])

    def _forward(self, batch: Sequence[Running], ids: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states [B, T, C] of ids [B, T], of which the first is each slot's last token."""
        slots = [running.slot for running in batch]
        rows = torch.tensor(ids, device=self._device)
        context = self._cache.rows(
            rows,
            slots=[slot.index for slot in slots],
            starts=[len(slot.tokens) - 1 for slot in slots],
            before=[slot.tokens[-2:][0] for slot in slots],
        )
        return self._model(rows, context)

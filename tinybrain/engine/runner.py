"""Forward passes for requests: reads prompts chunk by chunk, decodes a batch by some tokens each.

Knows no queue and no thread: who runs when is the engine's decision.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from tinybrain.engine.decode_step import DecodeStep
from tinybrain.engine.decode_ways import ways
from tinybrain.engine.drafts import Drafts
from tinybrain.engine.kv_cache import KVCache
from tinybrain.engine.model import Model
from tinybrain.engine.pipeline import Pipeline
from tinybrain.engine.request import Request, SampledToken
from tinybrain.engine.running import Running
from tinybrain.engine.sampler import Sampler, sample
from tinybrain.engine.slots import Slots

BESIDE = 4
"""A chunk of a quarter takes a bit over a quarter of the time: reading weights comes to weigh."""


@dataclass(slots=True)
class _Part:
    """A request's part in a decode step: the drafts ahead of it, the row to sample from next."""

    running: Running
    drafts: list[int]
    row: int
    chosen: list[SampledToken] = field(default_factory=list)

    def take(self, sampled: SampledToken | FloatingPointError) -> bool:
        """Take what was sampled; tell whether it was drafted, so that the next row is of use."""
        taken = self.running.take_or_fail(sampled)
        self.chosen += taken
        drafted, self.drafts = self.drafts[:1], self.drafts[1:]
        self.row += 1
        came_true = drafted == [token.id for token in taken] != []
        return came_true and self.running.finish_reason is None


class Runner:
    """A model and its cache; prompts are read by at most `chunk` tokens at once.

    A decode step may compute `speculative_rows` rows, where its batch leaves some free. If it is
    `pipelined`, which is for GPUs, none of that: then it is one of fixed shapes, a step ahead.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int,
        chunk: int,
        speculative_rows: int = 0,
        pipelined: bool = False,
    ) -> None:
        self._model = model
        self._device = model.device
        self._chunk = chunk
        self._speculative_rows = 0 if pipelined else speculative_rows
        self._slots = Slots(slots)
        self._cache = KVCache(
            model.config, slots + pipelined, dtype=model.kv_dtype, device=model.device
        )
        self._step = DecodeStep(model, self._cache, slots=slots) if pipelined else None
        self._pipeline = Pipeline(self._step) if self._step else None

    def prepare(self) -> None:
        """Do what would otherwise make the first requests wait; before there are any."""
        if self._step:
            self._step.prepare(ways(self._model))

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
        drafts = Drafts(request.prompt if self._speculative_rows > 1 else ())
        slot = self._slots.acquire(request.prompt)
        running = Running(request, slot, sampler, tokens_left, drafts)
        self._reuse(running)
        return running

    def prefill(self, running: Running, *, beside: bool = False) -> SampledToken | None:
        """Read the next chunk of a prompt; after the last, give the first new token.

        `beside` others that are being decoded, and wait for it, a chunk is a quarter as long, if
        that changes no bit: what an answer is must not depend on who else is there.

        Raises:
            FloatingPointError: The model's logits are not finite.
        """
        self._reuse(running)
        prompt, slot = running.request.prompt, running.slot
        shorter = beside and self._model.any_chunks
        known, most = len(slot.tokens), max(1, self._chunk // BESIDE) if shorter else self._chunk
        chunk, predicted = prompt[known - 1 : known - 1 + most], prompt[known : known + most]
        hidden = self._forward([running], [chunk])[0]
        ids = torch.tensor(predicted, dtype=torch.long, device=self._device)
        front = hidden[: len(predicted)]
        slot.extend(predicted, _finite(self._model.nll(front, ids)))
        running.computed += len(chunk)
        if len(predicted) == len(chunk):
            return None
        return running.take(running.sampler.sample(self._model.logits(hidden[-1:])[0]))

    def decode(self, batch: Sequence[Running]) -> list[list[SampledToken]]:
        """Go on with each request by one token or more; give these tokens for each.

        One that fails alone has an `error` then. Pipelined, these may be the tokens of the step
        before, or none yet.

        Behind its newest token, a request's drafts run through the model in the same pass. Then
        tokens are sampled one after the other, as without drafts, for as long as each is the one
        that was drafted. So the drafts change neither greedy tokens nor the distribution of
        sampled ones, nor even what a seed gives (as far as the model's kernels round alike).
        Sources: prompt lookup decoding (Saxena 2023); speculative sampling (Leviathan et al. 2023).
        """
        if self._pipeline:
            return self._pipeline.decode(batch)
        drafts = self._draft(batch)
        logits = self._logits(batch, drafts)
        firsts = accumulate((1 + len(draft) for draft in drafts), initial=0)
        parts = [_Part(*part) for part in zip(batch, drafts, firsts, strict=False)]
        going = parts
        while going:
            sampled = sample(
                [part.running.sampler for part in going],
                _rows(logits, [part.row for part in going]),
                [part.running.forced for part in going],
            )
            going = [part for part, token in zip(going, sampled, strict=True) if part.take(token)]
        return [part.chosen for part in parts]

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

    def _draft(self, batch: Sequence[Running]) -> list[list[int]]:
        # All rows are as long as the longest, and what they are filled up with is cached, too.
        room = self.context_length + 1 - max(len(running.slot.tokens) for running in batch)
        width = min(self._speculative_rows // len(batch), room)
        return [running.draft(max(0, width - 1)) for running in batch]

    def _logits(self, batch: Sequence[Running], drafts: Sequence[list[int]]) -> Tensor:
        """Logits [N, V] after each request's newest token and after each of its drafts."""
        width = 1 + max(map(len, drafts))
        ids = [
            [running.slot.tokens[-1], *draft, *[0] * (width - 1 - len(draft))]
            for running, draft in zip(batch, drafts, strict=True)
        ]
        hidden = self._forward(batch, ids).flatten(0, 1)
        rows = [n * width + at for n, draft in enumerate(drafts) for at in range(1 + len(draft))]
        return self._model.logits(_rows(hidden, rows))

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


def _finite(nll: Tensor) -> list[float]:
    numbers: list[float] = nll.tolist()
    if not all(map(math.isfinite, numbers)):
        raise FloatingPointError("the model's logits are not finite")
    return numbers


def _rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of a tensor, in ascending order; all of them without a copy."""
    return tensor if len(rows) == len(tensor) else tensor[rows]

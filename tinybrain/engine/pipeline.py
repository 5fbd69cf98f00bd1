"""Decoding one step ahead: the next is launched before the tokens of the last are read.

So a device never waits for the host. What a step computes for a request that, as is read
afterwards, has ended or must go on otherwise is dropped. Batches with a request that the device
cannot choose for are decoded step by step, their tokens chosen as `sampler.py` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tinybrain.engine.decode_step import DecodeStep
from tinybrain.engine.device_sampler import choice_for, is_greedy, is_plain, options
from tinybrain.engine.graphs import Told
from tinybrain.engine.request import SampledToken
from tinybrain.engine.running import Running
from tinybrain.engine.sampler import sample, sampled


@dataclass(frozen=True, slots=True)
class _Flight:
    """A step that was launched: what each request's token was drawn with, and the figures."""

    draws: dict[Running, float]
    told: Told


class Pipeline:
    """Decodes requests whose prompts are read."""

    def __init__(self, step: DecodeStep) -> None:
        self._step = step
        self._flight: _Flight | None = None
        self._placed: dict[Running, int] = {}
        """How many tokens the device has of a request, one it has chosen itself included."""

    def decode(self, batch: Sequence[Running]) -> list[list[SampledToken]]:
        """As `Runner.decode`, but what is given may be of the step before, or nothing yet."""
        flight, self._flight = self._flight, None
        if all(is_plain(running.request) and running.forced is None for running in batch):
            self._flight = self._launch(batch, flight.draws if flight else {})
        elif not flight:
            return self._decode_now(batch)
        chosen = self._land(flight, set(batch)) if flight else {}
        return [chosen.get(running, []) for running in batch]

    def _launch(self, batch: Sequence[Running], flying: dict[Running, float]) -> _Flight | None:
        going = [running for running in batch if running.tokens_left > (running in flying)]
        if not going:
            return None
        lengths = [len(running.slot.tokens) + (running in flying) for running in going]
        self._place(going, lengths)
        samplers = [running.sampler for running in going]
        draws = [0.0 if is_greedy(s.request) else s.draw() for s in samplers]
        slots = [running.slot.index for running in going]
        told = self._step.launch(slots, draws, choice_for(samplers), length=max(lengths))
        self._placed = {r: n + 1 for r, n in zip(going, lengths, strict=True)}
        return _Flight(dict(zip(going, draws, strict=True)), told)

    def _land(self, flight: _Flight, batch: set[Running]) -> dict[Running, list[SampledToken]]:
        chosen = {}
        for (running, draw), figures in zip(flight.draws.items(), flight.told.read(), strict=True):
            if running not in batch or running.finish_reason:
                continue
            if running.forced is None:
                chosen[running] = running.take_or_fail(sampled(figures))
            elif not is_greedy(running.request):
                running.sampler.give_back(draw)
        return chosen

    def _decode_now(self, batch: Sequence[Running]) -> list[list[SampledToken]]:
        lengths = [len(running.slot.tokens) for running in batch]
        self._place(batch, lengths)
        slots = [running.slot.index for running in batch]
        logits = self._step.logits(slots, length=max(lengths))
        self._placed = dict(zip(batch, lengths, strict=True))
        tokens = sample([r.sampler for r in batch], logits, [r.forced for r in batch])
        return [r.take_or_fail(token) for r, token in zip(batch, tokens, strict=True)]

    def _place(self, going: Sequence[Running], lengths: Sequence[int]) -> None:
        """Tell the device of requests of which it has not just as many tokens."""
        pairs = zip(going, lengths, strict=True)
        new = [running for running, length in pairs if self._placed.get(running) != length]
        if new:
            slots = [running.slot for running in new]
            self._step.place(
                [slot.index for slot in slots],
                [(slot.tokens[-1], slot.tokens[-2], len(slot.tokens) - 1) for slot in slots],
                [options(running.request) for running in new],
            )

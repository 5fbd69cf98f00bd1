"""A decode step of fixed shapes: one token for each row, chosen on the device.

Everything it works on lies in buffers that stay where they are, by slot: the newest token of each
request, where it stands, how the next is chosen. A step leaves there what the next one needs, so
that nothing has to be read in between. Knows slots, no requests.
"""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tinybrain.engine.decode_ways import Way
from tinybrain.engine.device_sampler import CANDIDATES, Choice, choose
from tinybrain.engine.graphs import Graphs, Step, Told, upload
from tinybrain.engine.kv_cache import KVCache
from tinybrain.engine.model import Model

LENGTHS = (256, 512, 1024)
"""Attention looks at the first so many positions, or at all: the fewest that are enough."""


FEW = 8
"""Up to so many rows a step is bound by reading weights, and computed as is fastest for one."""

USUAL_LENGTH = 512
"""For which ways are compared."""

AGREED = 0.05
"""How far, relative to their norm, logits may be from those of the plainest way."""

log = logging.getLogger(__name__)


class DecodeStep:
    """Steps of up to `slots` rows; the cache has one slot more, for rows that stand for nothing.

    Batches are filled up to the next power of two, so that there are few shapes.
    """

    def __init__(self, model: Model, cache: KVCache, *, slots: int) -> None:
        self.device = model.device
        context, words = model.config.sequence_len, model.config.vocab_size
        self._few = self._many = Way("plain", model)
        self._cache = cache
        self._spare = slots
        self._sizes = _powers_of_two(slots)
        self._lengths = [*(length for length in LENGTHS if length < context), context]
        self._graphs = Graphs(self.device)
        self._captured: dict[object, Step] = {}
        with self.device:
            # By slot: the newest token, the one before, the newest's position; `options`.
            self._tokens = torch.zeros(slots + 1, 3, dtype=torch.long)
            self._options = torch.zeros(slots + 1, 4)
            # By row.
            self._slots = torch.zeros(self._sizes[-1], dtype=torch.long)
            self._draws = torch.zeros(self._sizes[-1], dtype=torch.float64)
            self._logits = torch.zeros(self._sizes[-1], words)
            self._figures = torch.zeros(self._sizes[-1], 4)

    def place(
        self,
        slots: Sequence[int],
        tokens: Sequence[tuple[int, int, int]],
        options: Sequence[Sequence[float]],
    ) -> None:
        """Say of slots the newest token, the one before, the newest's position, and `options`."""
        at = upload(torch.tensor(slots), self.device)
        self._tokens.index_copy_(0, at, upload(torch.tensor(tokens), self.device))
        self._options.index_copy_(0, at, upload(torch.tensor(options), self.device))

    def logits(self, slots: Sequence[int], *, length: int) -> Tensor:
        """Logits [B, V] behind the newest tokens of slots, which hold no more than `length`.

        The next step overwrites them.
        """
        compute = self._compute(len(slots), length)
        self._fill(self._slots, slots, self._spare)
        compute()
        return self._logits[: len(slots)]

    def launch(
        self, slots: Sequence[int], draws: Sequence[float], choice: Choice, *, length: int
    ) -> Told:
        """Choose a token for each slot, and go on with it; gives `describe`'s figures.

        `length` is as for `logits`.
        """
        # Both before the buffers are filled, because capturing empties them.
        compute, go_on = self._compute(len(slots), length), self._go_on(len(slots), choice)
        self._fill(self._slots, slots, self._spare)
        self._fill(self._draws, draws, 0)
        compute()
        go_on()
        return Told(self._figures[: len(slots)])

    def prepare(self, ways: Sequence[Way]) -> None:
        """Take the fastest of several ways, and capture what is usual; nothing may be cached yet.

        The first way is right: others have to agree with it.
        """
        self._few = self._many = ways[0]
        if len(ways) > 1:
            self._cache.store.normal_()  # among zeros, wrong attention would not show
            sizes = self._sizes[0], self._sizes[-1]
            self._few, self._many = (self._fastest(ways, size) for size in sizes)
            self._cache.store.zero_()
        for size in self._sizes:
            for length in self._lengths:
                self._compute(size, length)
            for choice in (Choice(), Choice(CANDIDATES[0])):
                self._go_on(size, choice)

    def _fastest(self, ways: Sequence[Way], size: int) -> Way:
        length = _enough(self._lengths, min(USUAL_LENGTH, self._lengths[-1]))
        tokens, greedy = (1, 0, length - 1), (0.0, 0.0, math.inf, 0.0)
        slots = range(min(size, self._spare))
        self.place(slots, [tokens] * len(slots), [greedy] * len(slots))
        self._fill(self._slots, slots, self._spare)
        expected, times = None, {}
        for way in ways:
            try:
                run = self._graphs.capture(self._computing(way, size, length))
                run()
                logits = self._logits[:size]
                found = torch.cat([logits, way.figures(logits, self._slots[:size])], dim=-1)
                expected = found if expected is None else expected
                if (found - expected).norm() <= AGREED * expected.norm():
                    times[way] = self._graphs.milliseconds(run)
                else:
                    log.warning("Decoding is not %s: that computes something else.", way.name)
            except Exception as error:
                if way is ways[0]:
                    raise
                log.warning("Decoding is not %s: %s", way.name, error)
        told = ", ".join(f"{way.name} {time:.3f} ms" for way, time in times.items())
        log.info("A decode step of %d: %s", size, told)
        return min(times, key=times.__getitem__)

    def _way(self, size: int) -> Way:
        return self._few if size <= FEW else self._many

    def _compute(self, rows: int, length: int) -> Step:
        size, length = _enough(self._sizes, rows), _enough(self._lengths, length)
        return self._ready((size, length), self._computing(self._way(size), size, length))

    def _computing(self, way: Way, size: int, length: int) -> Step:
        def compute() -> None:
            slots = self._slots[:size]
            ids, before, positions = self._tokens[slots].unbind(-1)
            context = way.rows(
                self._cache.store, before=before, slots=slots, positions=positions, length=length
            )
            hidden = way.model(ids[:, None], context)[:, 0]
            self._logits[:size] = way.model.logits(hidden)

        return compute

    def _go_on(self, rows: int, choice: Choice) -> Step:
        size = _enough(self._sizes, rows)
        way = self._way(size)

        def go_on() -> None:
            slots, logits = self._slots[:size], self._logits[:size]
            chosen = choose(logits, self._options[slots], self._draws[:size], choice)
            self._figures[:size] = way.figures(logits, chosen)
            ids, _, positions = self._tokens[slots].unbind(-1)
            following = (positions + 1) * (slots != self._spare)
            self._tokens.index_copy_(0, slots, torch.stack([chosen, ids, following], dim=-1))

        return self._ready((size, choice), go_on)

    def _ready(self, key: object, step: Step) -> Step:
        if key not in self._captured:
            self._slots.fill_(self._spare)
            self._captured[key] = self._graphs.capture(step)
        return self._captured[key]

    def _fill(self, buffer: Tensor, values: Sequence[float], rest: float) -> None:
        size = _enough(self._sizes, len(values))
        filled = torch.tensor([*values, *[rest] * (size - len(values))], dtype=buffer.dtype)
        buffer[:size] = upload(filled, self.device)


def _powers_of_two(most: int) -> list[int]:
    return [1 << n for n in range((most - 1).bit_length() + 1)]


def _enough(sizes: Sequence[int], wanted: int) -> int:
    return next(size for size in sizes if size >= wanted)

"""A decode step of fixed shapes: one token for each row, chosen on the device.

Everything it works on lies in buffers that stay where they are, by slot: the newest token of each
request, where it stands, how the next is chosen. A step leaves there what the next one needs, so
that nothing has to be read in between. Knows slots, no requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinybrain.engine.decode_rows import GatheredRows, MakeRows
from tinybrain.engine.device_sampler import Choice, choose_and_describe
from tinybrain.engine.graphs import Graphs, Step, Told, upload
from tinybrain.engine.kv_cache import KVCache
from tinybrain.engine.model import Model

LENGTHS = (256, 512, 1024)
"""Attention looks at the first so many positions, or at all: the fewest that are enough."""


@dataclass(frozen=True, slots=True)
class Way:
    """One of several ways to compute the same step."""

    model: Model
    rows: MakeRows = GatheredRows
    choose: Callable[[Tensor, Tensor, Tensor, Choice], tuple[Tensor, Tensor]] = choose_and_describe


class DecodeStep:
    """Steps of up to `slots` rows; the cache has one slot more, for rows that stand for nothing.

    Batches are filled up to the next power of two, so that there are few shapes.
    """

    def __init__(self, model: Model, cache: KVCache, *, slots: int) -> None:
        self.device = model.device
        context, words = model.config.sequence_len, model.config.vocab_size
        self._way = Way(model)
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

        `length` is as of `logits`.
        """
        # Both before the buffers are filled, because capturing empties them.
        compute, choose = self._compute(len(slots), length), self._choose(len(slots), choice)
        self._fill(self._slots, slots, self._spare)
        self._fill(self._draws, draws, 0)
        compute()
        choose()
        return Told(self._figures[: len(slots)])

    def _compute(self, rows: int, length: int) -> Step:
        size, length = _enough(self._sizes, rows), _enough(self._lengths, length)

        def compute() -> None:
            slots = self._slots[:size]
            ids, before, positions = self._tokens[slots].unbind(-1)
            context = self._way.rows(
                self._cache.store, before=before, slots=slots, positions=positions, length=length
            )
            hidden = self._way.model(ids[:, None], context)[:, 0]
            self._logits[:size] = self._way.model.logits(hidden)

        return self._ready((size, length), compute)

    def _choose(self, rows: int, choice: Choice) -> Step:
        size = _enough(self._sizes, rows)

        def choose() -> None:
            slots = self._slots[:size]
            chosen, self._figures[:size] = self._way.choose(
                self._logits[:size], self._options[slots], self._draws[:size], choice
            )
            ids, _, positions = self._tokens[slots].unbind(-1)
            following = (positions + 1) * (slots != self._spare)
            self._tokens.index_copy_(0, slots, torch.stack([chosen, ids, following], dim=-1))

        return self._ready((size, choice), choose)

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

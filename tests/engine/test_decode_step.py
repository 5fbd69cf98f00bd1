"""A step of fixed shapes computes what a pass of any shape does, and no row changes another."""

import logging
import math
import time
from dataclasses import replace

import pytest
import torch

from tinybrain.engine.decode_rows import GatheredRows
from tinybrain.engine.decode_step import DecodeStep
from tinybrain.engine.decode_ways import Way, agree, ways
from tinybrain.engine.device_sampler import Choice
from tinybrain.engine.graphs import Graphs
from tinybrain.engine.kv_cache import KVCache

GREEDY = [0.0, 0.0, math.inf, 0.0]
SLOTS = 6


@pytest.fixture
def cache_of(each):
    """A cache in which some slots have read beginnings of the golden prompt."""
    cache = KVCache(each.model.config, SLOTS + 1, dtype=torch.float32, device=torch.device("cpu"))

    def read(lengths):
        for slot, length in lengths.items():
            ids = each.ids[None, :length]
            each.model(ids, cache.rows(ids, slots=[slot], starts=[0], before=[0]))
        return cache

    return read


def place(step, ids, lengths):
    """Have `lengths` of a prompt read, and its next token as the newest."""
    tokens = [(ids[at].item(), ids[at - 1].item(), at) for at in lengths.values()]
    step.place(list(lengths), tokens, [GREEDY] * len(lengths))


@pytest.mark.parametrize("lengths", [{0: 150}, {4: 3, 0: 150, 2: 77}, dict.fromkeys(range(6), 9)])
def test_it_computes_what_the_whole_sequence_gives(each, cache_of, lengths):
    cache = cache_of(lengths)
    step = DecodeStep(each.model, cache, slots=SLOTS)
    place(step, each.ids, lengths)
    found = step.logits(list(lengths), length=max(lengths.values()) + 1)
    for row, length in zip(found, lengths.values(), strict=True):
        expected = each.model.logits(each.hidden(each.ids[: length + 1])[-1])
        torch.testing.assert_close(row, expected, atol=2e-4, rtol=0)


def test_it_goes_on_by_itself(each, cache_of):
    cache = cache_of({3: 199})
    step = DecodeStep(each.model, cache, slots=SLOTS)
    place(step, each.ids, {3: 199})
    told = [step.launch([3], [0.0], Choice(), length=200 + n) for n in range(32)]
    assert [int(figures.read()[0][0]) for figures in told] == each.greedy


def test_rows_that_fill_up_a_batch_change_nothing_but_the_spare_slot(each, cache_of):
    cache = cache_of({0: 20, 1: 30, 2: 40, 5: 50})
    before = cache.store.clone()
    step = DecodeStep(each.model, cache, slots=SLOTS)
    place(step, each.ids, {0: 20, 1: 30, 2: 40})
    for _ in range(3):
        step.launch([0, 1, 2], [0.0] * 3, Choice(), length=64)
    changed = (cache.store != before).any(dim=(0, 1, 3, 5)).nonzero()
    places = [
        (slot, at) for slot, first in ((0, 20), (1, 30), (2, 40)) for at in range(first, first + 3)
    ]
    assert {tuple(place) for place in changed.tolist()} == {*places, (SLOTS, 0)}


def test_no_more_is_looked_at_than_may_be_needed(each, cache_of, monkeypatch):
    monkeypatch.setattr("tinybrain.engine.decode_step.LENGTHS", (32, 128))
    looked = []

    class Noted(GatheredRows):
        def __init__(self, store, *, length, **where):
            looked.append(length)
            super().__init__(store, length=length, **where)

    step = DecodeStep(each.model, cache_of({0: 20}), slots=SLOTS)
    step.prepare([replace(ways(each.model)[0], rows=Noted)])
    place(step, each.ids, {0: 20})
    for length in (21, 32, 33, 128, 129, 256):
        step.logits([0], length=length)
    assert looked == [32, 32, 128, 128, 256, 256]


class Slow(GatheredRows):
    def attend(self, *arguments, **options):
        time.sleep(0.03)
        return super().attend(*arguments, **options)


class Wrong(GatheredRows):
    def attend(self, *arguments, **options):
        return 2 * super().attend(*arguments, **options)


class Absent(GatheredRows):
    def attend(self, *arguments, **options):
        raise RuntimeError("this GPU cannot do that")


@pytest.fixture
def best_of_several(monkeypatch):
    """A pause of a busy machine makes no way slow: the best of several measurements counts."""
    measured = Graphs.milliseconds

    def best(graphs, step):
        return min(measured(graphs, step, rounds=1) for _ in range(5))

    monkeypatch.setattr(Graphs, "milliseconds", best)


@pytest.mark.usefixtures("best_of_several")
def test_the_fastest_way_that_computes_the_same_is_taken(golden, new_cache, caplog):
    caplog.set_level(logging.INFO)
    step = DecodeStep(golden.model, new_cache(golden.model, slots=3), slots=2)
    step.prepare(
        [
            Way("slow", golden.model, Slow),
            Way("wrong", golden.model, Wrong),
            Way("absent", golden.model, Absent),
            Way("fast", golden.model),
        ]
    )
    assert (step._few.name, step._many.name) == ("fast", "fast")
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (
        warned
        == [
            "Decoding is not wrong: that computes something else.",
            "Decoding is not absent: this GPU cannot do that",
        ]
        * 2
    )


def test_rows_that_attend_otherwise_do_not_agree(golden_model):
    assert agree(golden_model, Slow, GatheredRows)
    assert not agree(golden_model, Wrong, GatheredRows)

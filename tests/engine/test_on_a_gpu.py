"""What only a GPU shows: graphs replay what eager steps compute, and nothing waits."""

import logging

import pytest
import torch

from tinybrain.engine.checkpoint import read_checkpoint
from tinybrain.engine.decode_step import DecodeStep
from tinybrain.engine.decode_ways import ways
from tinybrain.engine.device_sampler import Choice
from tinybrain.engine.engine import Engine
from tinybrain.engine.fast_gpt import FastGPT
from tinybrain.engine.graphs import Graphs
from tinybrain.engine.kernels import FP32
from tinybrain.engine.kv_cache import KVCache
from tinybrain.engine.precision import choose_gpu_kind
from tinybrain.engine.request import Request
from tinybrain.engine.runner import Runner
from tinybrain.engine.serving_weights import FromCheckpoint
from tinybrain.engine.variants import V4_MARCH

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(600),  # compiles
]
CUDA = torch.device("cuda")


def on_gpu(golden, kind):
    name = golden.variant if golden.variant == V4_MARCH.name else None
    checkpoint = read_checkpoint(golden.files, variant_name=name)
    return FastGPT(FromCheckpoint(checkpoint, kind), kind, CUDA)


@pytest.fixture
def exact(each):
    """The golden model of each variant, in fp32 on a GPU."""
    return on_gpu(each, FP32)


@pytest.fixture
def served(golden):
    """The golden V1 as a GPU serves it."""
    return on_gpu(golden, choose_gpu_kind("16-bit", CUDA))


def start(runner, prompt, max_tokens=32, **options):
    running = runner.start(Request(prompt, print, max_tokens, **options))
    while running.is_reading:
        runner.prefill(running)
    return running


def decode(runner, *batch):
    """The tokens of each request up to its end."""
    told = {running: [] for running in batch}
    while going := [running for running in batch if not running.finish_reason]:
        assert not any(running.error for running in going)
        for running, tokens in zip(going, runner.decode(going), strict=True):
            told[running] += tokens
    return list(told.values())


def test_a_captured_step_does_what_it_does_uncaptured():
    numbers = torch.zeros(3, device=CUDA)
    captured = Graphs(CUDA).capture(lambda: numbers.add_(1))
    numbers.zero_()
    for _ in range(5):
        captured()
    assert numbers.tolist() == [5, 5, 5]


def test_every_variant_gives_nanochats_tokens(exact, each):
    runner = Runner(exact, slots=2, chunk=64, pipelined=True)
    runner.prepare()
    running = start(runner, each.ids.tolist())
    decode(runner, running)
    assert running.slot.tokens[200:] == each.greedy


def test_every_way_can_be_had_and_agrees(served, caplog):
    caplog.set_level(logging.INFO)
    cache = KVCache(served.config, 17, dtype=served.kv_dtype, device=CUDA)
    tried = ways(served)
    DecodeStep(served, cache, slots=16).prepare(tried)
    assert len(tried) == 3
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_steps_are_graphs_and_wait_for_nothing(served, golden, caplog):
    runner = Runner(served, slots=4, chunk=64, pipelined=True)
    runner.prepare()
    ids = golden.ids.tolist()
    batch = [start(runner, ids[n:], 30, temperature=1.0, top_k=50 * n, seed=n) for n in range(3)]
    for _ in range(3):
        runner.decode(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            runner.decode(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert "without a CUDA graph" not in caplog.text


@pytest.mark.parametrize("top_k", [0, 50])
def test_a_seed_gives_the_same_tokens_again_and_beside_others(served, golden, top_k):
    runner, ids = Runner(served, slots=4, chunk=64, pipelined=True), golden.ids.tolist()
    options = {"temperature": 1.0, "top_k": top_k, "seed": 3}
    told = [decode(runner, start(runner, ids[:50], **options))[0] for _ in range(2)]
    assert [token.id for token in told[0]] == [token.id for token in told[1]]


def test_the_device_has_the_row_that_the_host_would_have_chosen(served, golden):
    cache = KVCache(served.config, 3, dtype=served.kv_dtype, device=CUDA)
    step = DecodeStep(served, cache, slots=2)
    for slot in range(2):
        step.place([slot], [(7, 0, 0)], [[0.0, 0.0, float("inf"), 0.0]])
    expected = step.logits([0, 1], length=1).argmax(-1).tolist()
    (first, *_), (second, *_) = step.launch([0, 1], [0.0] * 2, Choice(), length=1).read()
    assert [first, second] == expected


def test_an_engine_answers_many_at_once(served, golden, listener):
    engine = Engine(served, slots=8)
    ids = golden.ids.tolist()
    listeners = [listener(ids[n:], 20, temperature=0.8, top_k=50, seed=n) for n in range(20)]
    for one in listeners:
        engine.submit(one.request)
    assert [len(one.tokens()) for one in listeners] == [20] * 20
    engine.close()

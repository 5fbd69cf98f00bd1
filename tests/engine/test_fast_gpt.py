import pytest
import torch

from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.checkpoint import read_checkpoint
from tinybrain.engine.fast_gpt import FastGPT
from tinybrain.engine.gpu_kernels import GPU_BF16, GPU_FP16
from tinybrain.engine.kernels import FP16, FP32, INT8
from tinybrain.engine.native_kernels import NATIVE_HALF, NATIVE_INT8
from tinybrain.engine.precision import works
from tinybrain.engine.serving_weights import FromCheckpoint
from tinybrain.engine.variants import V4_MARCH


@pytest.fixture
def fast(each):
    """The golden model of a variant, packed."""

    def build(kind):
        if not works(kind):
            pytest.skip(f"this machine has no kernel for {kind.name}")
        name = each.variant if each.variant == V4_MARCH.name else None
        return FastGPT(FromCheckpoint(read_checkpoint(each.files, variant_name=name), kind), kind)

    return build


def logits(model, ids):
    return model.logits(model(ids[None], WholeSequence(ids[None]))[0])


def test_in_fp32_it_is_the_reference(each, fast):
    torch.testing.assert_close(
        logits(fast(FP32), each.ids)[each.positions], each.logits, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", [FP16, NATIVE_HALF], ids=lambda kind: kind.name)
def test_in_16_bits_every_choice_is_the_references(each, fast, kind):
    found, expected = logits(fast(kind), each.ids), logits(each.model, each.ids)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.99


def test_in_a_gpus_fp16_every_choice_is_the_references(each, fast):
    found, expected = logits(fast(GPU_FP16[-1]), each.ids), logits(each.model, each.ids)
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.98


def test_in_a_gpus_bf16_it_is_close_to_the_reference(each, fast):
    found, expected = logits(fast(GPU_BF16[-1]), each.ids), logits(each.model, each.ids)
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.9


@pytest.mark.parametrize("kind", [INT8, NATIVE_INT8], ids=lambda kind: kind.name)
def test_in_8_bits_it_is_close_to_the_reference(each, fast, kind):
    found, expected = logits(fast(kind), each.ids), logits(each.model, each.ids)
    # Random weights leave many near-ties; what it does to trained ones, benchmarks/README.md says.
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.9


@pytest.mark.parametrize("kind", [FP16, NATIVE_HALF], ids=lambda kind: kind.name)
def test_greedy_continuation_with_its_16_bit_cache_equals_nanochats(each, fast, new_cache, kind):
    model = fast(kind)
    cache = new_cache(model, slots=1, dtype=model.kv_dtype)
    ids, greedy, before, start = each.ids[None], [], 0, 0
    for _ in range(32):
        context = cache.rows(ids, slots=[0], starts=[start], before=[before])
        token = model.logits(model(ids, context)[0, -1:]).argmax().item()
        start, before = start + ids.shape[1], ids[0, -1].item()
        ids = torch.tensor([[token]])
        greedy.append(token)
    assert greedy == each.greedy

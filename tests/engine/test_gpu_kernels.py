import pytest
import torch
from torch.nn import functional

from tinybrain.engine.gpu_kernels import GPU_BF16, GPU_FP16
from tinybrain.engine.precision import choose_gpu_kind, works

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda")


@pytest.mark.parametrize("kind", [GPU_BF16[-1], GPU_FP16[-1]], ids=lambda kind: kind.name)
def test_what_needs_no_gpu_works_without_one(kind):
    assert works(kind)


def test_in_fp16_large_numbers_do_not_overflow():
    x = torch.randn(3, 64) * torch.tensor([[1.0], [1e6], [0.0]])
    weight = torch.randn(32, 64)
    kind = GPU_FP16[-1]
    found = kind.pack(*kind.prepare(weight))(x)
    torch.testing.assert_close(found, functional.linear(x, weight), rtol=0.01, atol=1e4)
    torch.testing.assert_close(found[0], functional.linear(x, weight)[0], rtol=0, atol=0.05)


@needs_gpu
@pytest.mark.parametrize("kind", [*GPU_BF16, *GPU_FP16])
def test_each_kind_works_on_a_gpu(kind):
    assert works(kind, CUDA)


@needs_gpu
def test_sums_stay_floats_on_a_gpu():
    kind = choose_gpu_kind("16-bit", CUDA)
    x, weight = torch.randn(4, 1280), torch.randn(65, 1280)
    found = kind.pack(*(part.cuda() for part in kind.prepare(weight)))(x.cuda()).cpu()
    assert not found.equal(found.bfloat16().float())

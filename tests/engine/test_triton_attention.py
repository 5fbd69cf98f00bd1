"""Runs on a GPU, and where Triton is installed also on a CPU, with TRITON_INTERPRET=1 set."""

import os

import pytest
import torch

from tinybrain.engine.decode_rows import GatheredRows

ON_GPU = torch.cuda.is_available()
if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton")

DEVICE = torch.device("cuda" if ON_GPU else "cpu")
LENGTH = 512
POSITIONS = (0, 1, 63, 64, 65, 300, 511)


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("window", [None, 0, 1, 128])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(3, 3, 128), (4, 2, 16)])
def test_it_attends_and_caches_as_the_definition(rows, window, heads, kv_heads, size):
    from tinybrain.engine.triton_attention import TritonRows  # noqa: PLC0415  # see the docstring

    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE)

    stores = [random(2, 2, rows + 2, kv_heads, 600, size).half()]
    stores.append(stores[0].clone())
    qk, v = random(rows, 1, heads + kv_heads, size), random(rows, 1, kv_heads, size)
    q, k = qk[:, :, :heads], qk[:, :, heads:]
    positions = torch.tensor([[7, POSITIONS[n % 7 - 2]] for n in range(rows)])
    where = {
        "before": torch.zeros(rows, dtype=torch.long, device=DEVICE),
        "slots": (torch.randperm(rows + 2, generator=generator)[:rows]).to(DEVICE),
        "positions": positions.to(DEVICE)[:, 1],
        "length": LENGTH,
    }
    found, expected = (
        kind(store, **where).attend(1, q, k, v, window=window)
        for kind, store in zip((TritonRows, GatheredRows), stores, strict=True)
    )
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    assert stores[0].equal(stores[1])

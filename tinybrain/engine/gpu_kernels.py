"""Linear layers for a GPU: weights in 16 bits, all around the products in fp32.

A GPU without bf16 arithmetic (before Ampere) gets fp16, in which a squared ReLU overflows: there
each row is divided by its largest number first. Nothing here needs a GPU but `FloatSums`.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from tinybrain.engine.kernels import BF16, FP16, Kernel, Kind


class MixedLinear(Kernel):
    """Weights and what they are multiplied with in 16 bits; results too, before they are floats."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        return functional.linear(x.to(self._weight.dtype), self._weight).float()


class FloatSums(MixedLinear):
    """As before, but sums stay floats: close logits stay apart, and a conversion is saved."""

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        if torch.compiler.is_compiling():  # its own products are of floats, and part of other loops
            return super().product(x)
        rows = x.reshape(-1, x.shape[-1]).to(self._weight.dtype)
        sums: Tensor = torch.mm(rows, self._weight.t(), out_dtype=torch.float32)
        return sums.view(*x.shape[:-1], -1)


class Scaled(Kernel):
    """Rows go through another kernel with 1 as their largest number."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        largest: Tensor = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-20)
        return self._kernel.product(x / largest) * largest


def _scaled(kind: Kind) -> Kind:
    return replace(kind, pack=lambda *parts: Scaled(kind.pack(*parts)))


GPU_BF16 = (replace(BF16, pack=FloatSums), replace(BF16, pack=MixedLinear))
GPU_FP16 = tuple(_scaled(replace(FP16, pack=kernel)) for kernel in (FloatSums, MixedLinear))
"""The best first, for `precision.py` to try."""

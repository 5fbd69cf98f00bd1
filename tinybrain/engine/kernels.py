"""Linear layers with prepacked weights: what a CPU computes fastest, behind one interface.

A kernel maps rows [..., in] to float rows [..., out]; of fp16 and int8 no bit of a row depends on
its neighbours. Knows nothing of models. Most of torch's operators used here are internal to it:
`precision.py` tries one before it chooses it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MANY_ROWS = 32
"""From here on a product is bound by arithmetic, below by reading weights."""

Kernel = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to compute linear layers.

    `prepare` gives what has to be kept of a float weight [out, in], on disk for example, and
    `pack` makes a kernel of that.
    """

    name: str
    prepare: Callable[[Tensor], tuple[Tensor, ...]]
    pack: Callable[..., Kernel]


class PlainLinear:
    """Plain torch in fp32: the definition."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        return functional.linear(x, self._weight)


class HalfLinear:
    """Weights in fp16, arithmetic in fp32 (FBGEMM): at the memory's speed for one row."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), None)

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return y


class BrainFloatLinear:
    """Weights and activations in bf16 (oneDNN): for many rows, on CPUs that multiply bf16."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001  # torch's own

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001  # torch's own
            x.bfloat16(), self._packed, None, "none", [], ""
        )
        return y.float()


class Int8Linear:
    """Weights in int8 with a scale a row, activations quantised row by row (oneDNN).

    torch's own dynamic quantisation has one scale for a whole batch, so that requests would
    change each other's results. Sums are exact integers, so here they cannot.
    """

    def __init__(self, weight: Tensor, scales: Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        # Without VNNI two products are summed in 16 bits: a bit less keeps them from saturating.
        self._levels = 127.0 if torch.cpu._is_vnni_supported() else 63.0  # noqa: SLF001  # torch's own
        self._middle = torch.tensor(128.5)  # and a half: the conversion to uint8 truncates

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        # Unsigned, because oneDNN's fast paths are for that.
        largest = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True).clamp_min_(1e-20)
        levels = torch.addcmul(self._middle, x, self._levels / largest).to(torch.uint8)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels,
            *(1.0, 128, self._packed, self._scales, self._zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        return y.mul_(largest.mul_(1 / self._levels))


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out, in] as int8 and its scales [out]: symmetric, the largest of a row is 127."""
    weight = weight.float()
    scales = weight.abs().amax(dim=1).clamp_min_(1e-20).div_(127)
    return (weight / scales[:, None]).round_().to(torch.int8), scales


FP32 = Kind("fp32", lambda weight: (weight.float(),), PlainLinear)
FP16 = Kind("fp16", lambda weight: (weight.half(),), HalfLinear)
BF16 = Kind("bf16", lambda weight: (weight.bfloat16(),), BrainFloatLinear)
INT8 = Kind("int8", quantise, Int8Linear)


def by_rows(few: Kind, many: Kind) -> Kind:
    """One kind for few rows, another for MANY_ROWS and more; both copies of a weight are held."""

    def prepare(weight: Tensor) -> tuple[Tensor, ...]:
        return (*few.prepare(weight), *many.prepare(weight))

    def pack(*prepared: Tensor) -> Kernel:
        half = len(prepared) // 2
        for_few, for_many = few.pack(*prepared[:half]), many.pack(*prepared[half:])
        return lambda x: (for_many if x[..., 0].numel() >= MANY_ROWS else for_few)(x)

    return Kind(f"{few.name}+{many.name}", prepare, pack)

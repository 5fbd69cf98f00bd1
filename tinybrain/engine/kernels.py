"""Linear layers with prepacked weights: what a CPU computes fastest, behind one interface.

A kernel maps rows [..., in] to float rows [..., out]; of 16-bit and int8 ones no bit of a row
depends on its neighbours. Knows nothing of models. Here are torch's, most of whose operators are
internal to it: `precision.py` tries one before it chooses it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tinybrain.engine.gpt import rms_norm
from tinybrain.engine.perplexity import negative_log_likelihoods

MANY_ROWS = 32
"""From here on a product is bound by arithmetic, below by reading weights."""


class Kernel(ABC):
    """A linear layer, with what a transformer does right before and after one."""

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""

    def __call__(
        self,
        x: Tensor,
        *,
        norm: bool = False,
        squared_relu: bool = False,
        cap: float = 0,
        add: Tensor | None = None,
    ) -> Tensor:
        """Map x [..., in], normed first or not, to [..., out].

        Then come a squared ReLU or not, a soft cap (cap * tanh(y / cap)) if it is positive, and
        `add` [..., out].
        """
        y = self.product(rms_norm(x) if norm else x)
        if squared_relu:
            y = y.relu_().square_()
        if cap:
            y = y.div_(cap).tanh_().mul_(cap)
        return y if add is None else y.add_(add)

    def nll(self, x: Tensor, ids: Tensor, *, cap: float) -> Tensor:
        """Negative log-likelihoods [n] of ids [n], in nats, under capped logits of x [n, in]."""
        return negative_log_likelihoods(lambda rows: self(rows, cap=cap), x, ids)


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to compute linear layers.

    With `any_rows` no bit of a row depends on how many there are, and attention may be our own.

    `prepare` gives what has to be kept of a float weight [out, in], on disk for example: so many
    `parts`, of which `pack` makes a kernel.
    """

    name: str
    prepare: Callable[[Tensor], tuple[Tensor, ...]]
    pack: Callable[..., Kernel]
    parts: int = 1
    any_rows: bool = False


class PlainLinear(Kernel):
    """Plain torch in fp32: the definition."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        return functional.linear(x, self._weight)


class HalfLinear(Kernel):
    """Weights in fp16, arithmetic in fp32 (FBGEMM): at the memory's speed for one row."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), None)

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return y


class BrainFloatLinear(Kernel):
    """Weights and activations in bf16 (oneDNN): for many rows, on CPUs that multiply bf16."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001  # torch's own

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001  # torch's own
            x.bfloat16(), self._packed, None, "none", [], ""
        )
        return y.float()


class Int8Linear(Kernel):
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

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
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
INT8 = Kind("int8", quantise, Int8Linear, parts=2)


class ByRows(Kernel):
    """One kernel for few rows, another for MANY_ROWS and more."""

    def __init__(self, few: Kernel, many: Kernel) -> None:
        self._few, self._many = few, many

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        return self._for(x).product(x)

    def __call__(self, x: Tensor, **fused: Any) -> Tensor:
        """See `Kernel`."""
        return self._for(x)(x, **fused)

    def nll(self, x: Tensor, ids: Tensor, *, cap: float) -> Tensor:
        """See `Kernel`."""
        return self._for(x).nll(x, ids, cap=cap)

    def _for(self, x: Tensor) -> Kernel:
        return self._many if x[..., 0].numel() >= MANY_ROWS else self._few


def by_rows(few: Kind, many: Kind) -> Kind:
    """One kind for few rows, another for many; both copies of a weight are held."""

    def prepare(weight: Tensor) -> tuple[Tensor, ...]:
        return (*few.prepare(weight), *many.prepare(weight))

    def pack(*prepared: Tensor) -> Kernel:
        return ByRows(few.pack(*prepared[: few.parts]), many.pack(*prepared[few.parts :]))

    return Kind(f"{few.name}+{many.name}", prepare, pack, parts=few.parts + many.parts)

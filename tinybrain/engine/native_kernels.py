"""Linear layers computed by the engine's own C code; see native/linear.c for the layout.

What is kept of a weight is what the code reads, so that files of it can be mapped and used as they
are.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tinybrain.engine.kernels import Kernel, Kind, quantise
from tinybrain.engine.native import NORM, SQUARED_RELU, Matrix, library
from tinybrain.errors import ConfigError

PANEL = 64
TOGETHER = 4


class NativeLinear(Kernel):
    """Packed weights of `rows` outputs and `columns` inputs; int8 ones have scales and sums."""

    def __init__(
        self,
        shape: Tensor,
        weights: Tensor,
        scales: Tensor | None = None,
        sums: Tensor | None = None,
    ) -> None:
        native = library()
        if native is None:
            raise RuntimeError("This installation or this CPU lacks the engine's own kernels.")
        self._native = native
        self._held = (weights, scales, sums)
        pointers = (None if tensor is None else tensor.data_ptr() for tensor in self._held)
        rows, columns = shape.tolist()
        panels, inputs = -(-rows // PANEL), columns if scales is None else -(-columns // TOGETHER)
        beside = [part.numel() for part in (scales, sums) if part is not None]
        expected = panels * inputs * PANEL * (1 if scales is None else TOGETHER)
        if not columns or weights.numel() != expected or any(n != panels * PANEL for n in beside):
            raise ConfigError(
                "The converted weights are damaged. Delete the folder weights in TINYBRAIN_HOME; "
                "they will be made again."
            )
        self._matrix = Matrix(*pointers, columns, rows)

    def product(self, x: Tensor) -> Tensor:
        """See `Kernel`."""
        return self(x)

    def __call__(
        self,
        x: Tensor,
        *,
        norm: bool = False,
        squared_relu: bool = False,
        cap: float = 0,
        add: Tensor | None = None,
    ) -> Tensor:
        """See `Kernel`."""
        flags = norm * NORM | squared_relu * SQUARED_RELU
        return self._native.linear(self._matrix, x.contiguous(), flags=flags, cap=cap, add=add)

    def nll(self, x: Tensor, ids: Tensor, *, cap: float) -> Tensor:
        """See `Kernel`."""
        return self._native.nll(self._matrix, x.contiguous(), ids.contiguous(), cap=cap)


def in_half_panels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The shape of a weight [out, in], and fp16 panels [out / 64, in, 64] of it."""
    rows, columns = weight.shape
    filled = functional.pad(weight, (0, 0, 0, -rows % PANEL)).half()
    panels = filled.view(-1, PANEL, columns).transpose(1, 2).contiguous()
    return torch.tensor(weight.shape), panels


def in_int8_panels(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The shape of a weight [out, in], int8 panels [out / 64, in / 4, 64, 4], scales and sums."""
    rows, columns = weight.shape
    levels, scales = quantise(weight)
    filled = functional.pad(levels, (0, -columns % TOGETHER, 0, -rows % PANEL))
    panels = filled.view(-1, PANEL, filled.shape[1] // TOGETHER, TOGETHER).transpose(1, 2)
    sums = filled.sum(dim=1, dtype=torch.int32)
    scales = functional.pad(scales, (0, -rows % PANEL))
    return torch.tensor(weight.shape), panels.contiguous(), scales, sums


NATIVE_HALF = Kind("fp16-native", in_half_panels, NativeLinear, parts=2, any_rows=True)
NATIVE_INT8 = Kind("int8-native", in_int8_panels, NativeLinear, parts=4, any_rows=True)

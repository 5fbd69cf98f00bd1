"""Which kernels this machine computes a precision with: tried, and measured, at every start.

fp32 is the definition; 16-bit rounds weights (and on some CPUs and on GPUs activations) to 16 bits;
int8 rounds both to 8, for twice the speed again.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from tinybrain.engine.gpu_kernels import GPU_BF16, GPU_FP16
from tinybrain.engine.kernels import BF16, FP16, FP32, INT8, Kernel, Kind, by_rows
from tinybrain.engine.native_kernels import NATIVE_HALF, NATIVE_INT8

BY_PRECISION: Mapping[str, tuple[Kind, ...]] = MappingProxyType(
    {"fp32": (), "16-bit": (NATIVE_HALF, FP16, BF16), "int8": (NATIVE_INT8, INT8)}
)

CPU = torch.device("cpu")

CLEARLY = 0.7
ROUNDS = 15


def works(kind: Kind, device: torch.device = CPU) -> bool:
    """Whether this machine and this torch have the kernel, and it computes what it should."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 96, generator=generator)
    x = torch.randn(5, 96, generator=generator)
    expected = functional.linear(x, weight)
    try:
        parts = [part.to(device) for part in kind.prepare(weight)]
        found = kind.pack(*parts)(x.to(device)).cpu()
    except (RuntimeError, AttributeError):
        return False
    return bool((found - expected).norm() <= 0.05 * expected.norm())


def fastest(kinds: Sequence[Kind], *, rows: int, width: int = 512) -> Kind:
    """The kind that takes the least time for some rows, measured now.

    Another than the first has to be clearly faster: results should not change from start to start
    because a machine was busy.
    """
    weight, x = torch.randn(4 * width, width), torch.randn(rows, width)
    kernels = [kind.pack(*kind.prepare(weight)) for kind in kinds]
    # In turns, so that what else the machine does falls on all of them; and in one thread, because
    # how long threads wait for each other says more about the machine's other work than of kernels.
    with _one_thread():
        rounds = [[_time(kernel, x) for kernel in kernels] for _ in range(ROUNDS)]
    first, *others = map(min, zip(*rounds, strict=True))
    if others and min(others) < CLEARLY * first:
        return kinds[1 + others.index(min(others))]
    return kinds[0]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _time(kernel: Kernel, x: Tensor) -> float:
    start = time.perf_counter()
    kernel(x)
    return time.perf_counter() - start


def choose_kind(precision: str) -> Kind:
    """The best kind of this machine for a precision: "fp32", "16-bit" or "int8".

    Of "16-bit" there are several, and decoding and prefill each get what is fastest for them. What
    this machine cannot do falls back to the next more precise.
    """
    kinds = [kind for kind in BY_PRECISION[precision] if works(kind)]
    if not kinds:
        return choose_kind("16-bit") if precision == "int8" else FP32
    few, many = (fastest(kinds, rows=rows) for rows in (1, 128))
    return few if few is many else by_rows(few, many)


def choose_gpu_kind(precision: str, device: torch.device) -> Kind:
    """The best kind of a CUDA device for a precision: of "int8", too, that is one of 16 bits."""
    if precision == "fp32":
        return FP32
    kinds = GPU_BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else GPU_FP16
    return next((kind for kind in kinds if works(kind, device)), FP32)

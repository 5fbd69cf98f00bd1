"""The engine's own kernels, in C, for CPUs with AVX-512 VNNI: called on tensors.

They are compiled when the package is installed, if there is a C compiler; without them, or on other
CPUs, `library` gives None and torch computes. Tensors are to be contiguous; nothing is checked here
that would cost time. The C code runs in torch's own threads: both use the same OpenMP runtime.
"""

import ctypes
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

NORM, SQUARED_RELU = 1, 2
QUERIES_AT_ONCE = 4
LANES = 16


class Matrix(Structure):
    """A packed matrix, as linear.c describes it."""

    _fields_ = (
        ("weights", c_void_p),
        ("scales", c_void_p),
        ("sums", c_void_p),
        ("columns", c_int64),
        ("rows", c_int64),
    )


class _Attention(Structure):
    _fields_ = (
        *(
            (name, c_void_p)
            for name in ("q", "k", "v", "keys", "values", "slots", "positions", "y")
        ),
        *(
            (name, c_int64)
            for name in ("rows", "width", "stride", "heads", "kv_heads", "length", "size", "window")
        ),
    )


class Library:
    """The compiled functions."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self._linear, self._nll = library.tinybrain_linear, library.tinybrain_nll
        self._rotate, self._attend = library.tinybrain_rotate, library.tinybrain_attend
        pointer, count, number = c_void_p, c_int64, c_float
        self._linear.argtypes = (
            *(POINTER(Matrix), pointer, count, pointer, number),
            *(c_int, pointer, pointer, c_int),
        )
        self._nll.argtypes = (
            *(POINTER(Matrix), pointer, count, pointer, number),
            *(pointer, pointer, pointer, c_int),
        )
        self._rotate.argtypes = (pointer, *[count] * 4, pointer, pointer, number, c_int)
        self._attend.argtypes = (POINTER(_Attention), pointer, c_int)
        for function in (self._linear, self._nll, self._rotate, self._attend):
            function.restype = None
        self.supported = bool(library.tinybrain_supported())

    def linear(
        self,
        matrix: Matrix,
        x: Tensor,
        *,
        flags: int = 0,
        cap: float = 0,
        add: Tensor | None = None,
    ) -> Tensor:
        """Rows [..., out] of x [..., in], with what `flags` say done to them.

        `cap` > 0 caps results softly (cap * tanh(y / cap)), `add` [..., out] is added to them.
        """
        _check(x, matrix)
        y = x.new_empty(*x.shape[:-1], matrix.rows)
        if add is not None:
            add = add.expand(y.shape).contiguous()
        count = x.numel() // matrix.columns
        scratch = _scratch(matrix, count)
        self._linear(
            *(byref(matrix), x.data_ptr(), count, None if add is None else add.data_ptr(), cap),
            *(flags, y.data_ptr(), scratch.data_ptr(), torch.get_num_threads()),
        )
        return y

    def nll(self, matrix: Matrix, x: Tensor, ids: Tensor, *, cap: float) -> Tensor:
        """Negative log-likelihoods [n] of ids [n] under the capped logits of x [n, in]."""
        _check(x, matrix)
        nll, threads = x.new_empty(len(x)), torch.get_num_threads()
        powers, scratch = x.new_zeros(threads, len(x), LANES), _scratch(matrix, len(x))
        self._nll(
            *(byref(matrix), x.data_ptr(), len(x), ids.data_ptr(), cap, nll.data_ptr()),
            *(powers.data_ptr(), scratch.data_ptr(), threads),
        )
        return nll

    def rotate(self, heads: Tensor, rotation: Tensor, positions: Tensor, *, scale: float) -> None:
        """Rotate heads [B, T, H, D], norm them and scale them, in place.

        `rotation` [length, D / 2] is complex, `positions` [B, T] are rows of it.
        """
        positions = positions.contiguous()
        rows, (count, size) = positions.numel(), heads.shape[2:]
        self._rotate(
            *(heads.data_ptr(), rows, count, size, heads.stride(1)),
            *(rotation.data_ptr(), positions.data_ptr(), scale, torch.get_num_threads()),
        )

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        cache: Tensor,
        slots: Tensor,
        positions: Tensor,
        window: int | None,
    ) -> Tensor:
        """Put k and v [B, T, Hkv, D] into `cache` [2, slots, Hkv, length, D], fp16; attend from q.

        q [B, T, H, D], k and v are equally strided; so is their row from token to token.
        """
        if not q.stride()[:2] == k.stride()[:2] == v.stride()[:2] or q.dtype != torch.float32:
            raise ValueError("q, k and v are to be floats, and strided alike.")
        width, heads, size = q.shape[1:]
        y = q.new_empty(q.shape)
        keys, values = cache
        threads = torch.get_num_threads()
        scores = q.new_empty(threads, QUERIES_AT_ONCE, cache.shape[3])
        about = _Attention(
            *(tensor.data_ptr() for tensor in (q, k, v, keys, values, slots, positions, y)),
            *(len(q), width, q.stride(1), heads, k.shape[2], cache.shape[3], size),
            -1 if window is None else window,
        )
        self._attend(byref(about), scores.data_ptr(), threads)
        return y


def _check(x: Tensor, matrix: Matrix) -> None:
    if x.shape[-1] != matrix.columns or x.dtype != torch.float32:
        raise ValueError(f"{matrix.columns} floats a row are wanted, not {x.dtype} {x.shape}.")


def _scratch(matrix: Matrix, count: int) -> Tensor:
    return torch.empty(count * (4 * matrix.columns + 264), dtype=torch.uint8)


@cache
def library() -> Library | None:
    """The kernels, where they were compiled and this CPU can run them."""
    found = _compiled()
    return found if found and found.supported else None


def what_is_missing() -> str | None:
    """Why there is no `library`, in a sentence; None if there is one."""
    if library():
        return None
    if _compiled():
        return "This CPU lacks AVX-512 VNNI."
    return "They were not compiled: with a C compiler, install TinyBrain again."


@cache
def _compiled() -> Library | None:
    spec = find_spec("tinybrain.engine.native._kernels")
    try:
        return Library(spec.origin) if spec and spec.origin else None
    except OSError:  # of another machine, or without its OpenMP
        return None

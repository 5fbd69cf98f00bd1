"""Rotary position embedding and norm of queries and keys, for a FastGPT on a CPU."""

import torch
from torch import Tensor

from tinybrain.engine.gpt import GPTConfig, rms_norm, rotary_table
from tinybrain.engine.native import library
from tinybrain.engine.variants import Variant


class Rotary:
    """A table of rotations, for heads in which what rotates together is adjacent."""

    def __init__(self, config: GPTConfig, variant: Variant) -> None:
        cos, sin = rotary_table(config, variant)
        self._table = torch.complex(cos, -sin)  # by -theta
        self._scale = variant.qk_scale
        self._native = library()

    def __call__(self, heads: Tensor, positions: Tensor) -> Tensor:
        """Heads [B, T, H, D] at positions [B, T] rotated, normed and scaled; may be in place."""
        if self._native:
            self._native.rotate(heads, self._table, positions, scale=self._scale)
            return heads
        rotation = self._table[positions].unsqueeze(-2)
        turned = torch.view_as_complex(torch.unflatten(heads, -1, (-1, 2))) * rotation
        normed = rms_norm(torch.view_as_real(turned).flatten(-2))
        return normed if self._scale == 1 else normed * self._scale

"""Rotary position embedding and norm of queries and keys, for a FastGPT."""

import torch
from torch import Tensor

from tinybrain.engine.gpt import GPTConfig, rms_norm, rotary_table
from tinybrain.engine.native import library
from tinybrain.engine.variants import Variant


class Rotary:
    """A table of rotations, for heads in which what rotates together is adjacent; on a CPU."""

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


class RealRotary:
    """As `Rotary`, on any device: torch.compile makes no kernels for complex numbers."""

    def __init__(self, config: GPTConfig, variant: Variant, device: torch.device) -> None:
        self._table = rotary_table(config, variant).to(device)
        self._scale = variant.qk_scale

    def __call__(self, heads: Tensor, positions: Tensor) -> Tensor:
        """See `Rotary`; never in place."""
        cos, sin = self._table[:, positions].unsqueeze(-2)
        one, other = torch.unflatten(heads, -1, (-1, 2)).unbind(-1)
        turned = torch.stack([one * cos + other * sin, other * cos - one * sin], dim=-1)
        return rms_norm(turned.flatten(-2)) * self._scale

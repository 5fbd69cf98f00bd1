"""The ways to compute a decode step: plain torch, and what a GPU may have that is faster.

Which are tried; which one is taken, `decode_step.py` measures.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from tinybrain.engine.compiled_gpt import CompiledGPT
from tinybrain.engine.decode_rows import DecodeRows, GatheredRows
from tinybrain.engine.fast_gpt import FastGPT
from tinybrain.engine.model import Model
from tinybrain.engine.sampler import figures_of

LENGTH = 256
ROWS = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One of several ways to compute the same step."""

    name: str
    model: Model
    rows: type[DecodeRows] = GatheredRows
    figures: Callable[[Tensor, Tensor], Tensor] = figures_of


def ways(model: Model) -> list[Way]:
    """What may be tried on the model's device, the plainest first."""
    found = [Way("plain", model)]
    if model.device.type != "cuda" or not find_spec("triton"):
        return found
    rows = _triton_rows(model)
    if rows is not GatheredRows:
        found.append(Way("with Triton's attention", model, rows))
    if isinstance(model, FastGPT):
        # Not the choices: what some request asks for first would be compiled while others wait.
        found.append(Way("compiled", CompiledGPT(model), rows, torch.compile(figures_of)))
    return found


def _triton_rows(model: Model) -> type[DecodeRows]:
    try:
        from tinybrain.engine.triton_attention import TritonRows  # noqa: PLC0415  # GPUs have it

        if agree(model, TritonRows, GatheredRows):
            return TritonRows
        log.warning("Attention is not Triton's: that computes something else.")
    except Exception as error:  # noqa: BLE001  # whatever a compiler may raise; torch is there
        log.warning("Attention is not Triton's: %s", error)
    return GatheredRows


def agree(model: Model, one: type[DecodeRows], other: type[DecodeRows]) -> bool:
    """Whether two kinds of rows attend alike and cache the same, for a model of this shape."""
    config, device = model.config, model.device
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    head = config.head_dim
    store = random(1, 2, ROWS, config.n_kv_head, LENGTH, head).to(model.kv_dtype)
    stores = store, store.clone()
    q, k, v = (random(ROWS, 1, heads, head) for heads in (config.n_head, *[config.n_kv_head] * 2))
    slots = torch.arange(ROWS, device=device)
    found, expected = (
        kind(
            kept,
            before=slots,
            slots=slots.flip(0),
            positions=slots * (LENGTH - 1) // (ROWS - 1),
            length=LENGTH,
        ).attend(0, q, k, v)
        for kind, kept in zip((one, other), stores, strict=True)
    )
    near = (found - expected).norm() <= 0.01 * expected.norm()
    return bool(near) and stores[0].equal(stores[1])

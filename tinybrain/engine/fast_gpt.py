"""The model of gpt.py for serving: the same function of token ids, with prepacked weights.

What makes it fast on a CPU: kernels that read 16 or 8 bits a weight and do what comes before and
after a product with it (`kernels.py`), queries, keys and values from one product, the rotation as
one complex multiplication, keys and values cached in 16 bits. On a GPU it is the same with kernels
for that (`gpu_kernels.py`). gpt.py is the definition it is tested against.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from tinybrain.engine.attention import Context
from tinybrain.engine.gpt import SMEAR_CHANNELS, rms_norm, window_of
from tinybrain.engine.kernels import Kind
from tinybrain.engine.native import LANES
from tinybrain.engine.rotary import RealRotary, Rotary
from tinybrain.engine.serving_weights import Group, ServingWeights

CPU = torch.device("cpu")

PACKING_THREADS = 2
"""More would hold more layers in memory twice."""


class Block:
    """A layer's packed weights."""

    def __init__(
        self, weights: ServingWeights, layer: int, kind: Kind, device: torch.device
    ) -> None:
        group = _group(weights, layer, device)
        self.qkv, self.attended, self.up, self.down = (
            kind.pack(*group[name]) for name in ("qkv", "attended", "up", "down")
        )
        self.window = window_of(weights.config, weights.variant, layer)
        self.values = (*group.get("value_embedding", ()), *group.get("value_gate", ()))


class FastGPT:
    """A nanochat model with weights packed as `kind` says, on a device that the kind is for."""

    def __init__(self, weights: ServingWeights, kind: Kind, device: torch.device = CPU) -> None:
        self.config = weights.config
        self.variant = weights.variant
        self.device = device
        self.precision = kind.name
        self.any_chunks = kind.any_rows and self.config.head_dim % LANES == 0  # as `KVCache`
        self.kv_dtype = torch.float16  # normed keys fit; more of a number than bf16 keeps
        with ThreadPoolExecutor(PACKING_THREADS) as threads:
            layers = range(self.config.n_layer)
            blocks = threads.map(lambda layer: Block(weights, layer, kind, device), layers)
            top = _group(weights, None, device)
            self._head = kind.pack(*top["head"])
            self._blocks = list(blocks)
        (self._embedding,) = top["embedding"]
        self._rotary = (
            Rotary(self.config, self.variant)
            if device.type == "cpu"
            else RealRotary(self.config, self.variant, device)
        )
        self._residual, self._first = _numbers(top, "resid_lambdas"), _numbers(top, "x0_lambdas")
        if self.variant.smear:
            (self._smear_gate,) = top["smear_gate"]
            (self._smear,), (self._backout,) = (
                _numbers(top, name) for name in ("smear_lambda", "backout_lambda")
            )

    def __call__(self, ids: Tensor, context: Context) -> Tensor:
        """Hidden states [B, T, C] of token ids [B, T], ready for `logits`."""
        x = self._embed(ids, context)
        first = middle = x
        for layer, block in enumerate(self._blocks):
            if self.variant.residual_scales:
                x = self._residual[layer] * x + self._first[layer] * first
            q, k, v = self._project(block, x, ids, context.positions)
            attended = context.attend(layer, q, k, v, window=block.window)
            x = self._go_on(block, x, attended)
            if layer == self.config.n_layer // 2:
                middle = x
        if self.variant.smear:
            x = x - self._backout * middle
        return rms_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float logits [..., vocab_size] of just the hidden states [..., C] asked for."""
        return self._head(hidden, cap=self.variant.logit_cap)

    def nll(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Negative log-likelihoods [N] of ids [N], in nats, each after its hidden state [N, C]."""
        return self._head.nll(hidden, ids, cap=self.variant.logit_cap)

    def _embed(self, ids: Tensor, context: Context) -> Tensor:
        x = rms_norm(functional.embedding(ids, self._embedding).float())
        if not self.variant.smear:
            return x
        before = rms_norm(functional.embedding(context.before, self._embedding).float())
        gate = self._smear * torch.sigmoid(
            functional.linear(x[..., :SMEAR_CHANNELS], self._smear_gate)
        )
        return x + gate * before * (context.positions > 0).unsqueeze(-1)

    def _project(
        self, block: Block, x: Tensor, ids: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, T, H, D] of x [B, T, C], in `serving_weights`' order."""
        heads, kv_heads = self.config.n_head, self.config.n_kv_head
        parts = torch.unflatten(block.qkv(x, norm=True), -1, (-1, self.config.head_dim))
        qk = self._rotary(parts[..., :-kv_heads, :], positions)
        v = parts[..., -kv_heads:, :]
        if block.values:
            v += self._embedded_values(block, ids, x)
        return qk[..., :heads, :], qk[..., heads:, :], v

    def _go_on(self, block: Block, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream [B, T, C] behind a block, from x before it."""
        x = block.attended(attended.flatten(-2), add=x)
        return block.down(block.up(x, norm=True, squared_relu=True), add=x)

    def _embedded_values(self, block: Block, ids: Tensor, x: Tensor) -> Tensor:
        """What value embeddings add to the values [B, T, Hkv, D] of x [B, T, C]."""
        embedding, gate = block.values
        channels = rms_norm(x)[..., : self.variant.value_gate]
        share = torch.sigmoid(functional.linear(channels, gate)) * self.variant.value_gate_scale
        values = functional.embedding(ids, embedding).float()
        return share.unsqueeze(-1) * torch.unflatten(values, -1, (self.config.n_kv_head, -1))


def _group(weights: ServingWeights, layer: int | None, device: torch.device) -> Group:
    group = weights.group(layer)
    return {name: tuple(part.to(device) for part in parts) for name, parts in group.items()}


def _numbers(group: Group, name: str) -> Sequence[float]:
    (tensor,) = group.get(name, (torch.empty(0),))
    return cast("list[float]", tensor.tolist())

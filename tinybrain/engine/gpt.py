"""The transformer of a nanochat V1 checkpoint: token ids in, hidden states and logits out.

Knows nothing of caches, requests or text: attention over earlier positions is the business of
the `Context` it is called with. Numerics follow karpathy/nanochat as of October 2025 to January
2026: rotary embedding before the norm on queries and keys, rotating by -theta; norms without
weights; squared ReLU; logits capped at 15.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinybrain.engine.attention import Context

RMS_EPS = 1.1920929e-07  # what F.rms_norm(eps=None) uses for fp32, bf16 and fp16 alike
ROPE_BASE = 10_000
LOGIT_CAP = 15.0


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """The six fields of `model_config` in a nanochat V1 meta file.

    Raises:
        ValueError: A field is no positive integer, or the fields do not fit each other.
    """

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} is {value!r}, not a positive integer")
        if self.n_embd % (2 * self.n_head) or self.n_head % self.n_kv_head:
            raise ValueError(
                f"n_embd {self.n_embd}, n_head {self.n_head} and n_kv_head {self.n_kv_head} "
                "do not divide"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head


def rms_norm(x: Tensor) -> Tensor:
    """Root-mean-square norm over the last dimension, without a weight."""
    return functional.rms_norm(x, (x.shape[-1],), eps=RMS_EPS)


def rotary_table(config: GPTConfig) -> Tensor:
    """Cosines and sines [2, sequence_len, head_dim / 2], rounded to bf16 as nanochat keeps them."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
    frequencies = ROPE_BASE ** (-exponents / config.head_dim)
    angles = torch.outer(torch.arange(config.sequence_len, device="cpu").float(), frequencies)
    return torch.stack([angles.cos(), angles.sin()]).bfloat16().float()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the halves of heads x [B, T, H, D] by -theta; rotation [2, B, T, 1, D / 2]."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


class Attention(nn.Module):
    """Self-attention with rotary positions and normed queries and keys."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        kv_width = config.n_kv_head * config.head_dim
        self.c_q = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.c_k = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_v = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, rotation: Tensor, context: Context) -> Tensor:
        """Map x [B, T, C] to [B, T, C]."""
        q, k, v = (
            linear(x).unflatten(-1, (-1, self.head_dim))
            for linear in (self.c_q, self.c_k, self.c_v)
        )
        q, k = rms_norm(rotate(q, rotation)), rms_norm(rotate(k, rotation))
        y: Tensor = self.c_proj(context.attend(self.layer, q, k, v).flatten(-2))
        return y


class MLP(nn.Module):
    """Two linears around a squared ReLU."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, C] to [B, T, C]."""
        y: Tensor = self.c_proj(functional.relu(self.c_fc(x)).square())
        return y


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotation: Tensor, context: Context) -> Tensor:
        """Map x [B, T, C] to [B, T, C]."""
        x = x + self.attn(rms_norm(x), rotation, context)
        y: Tensor = x + self.mlp(rms_norm(x))
        return y


class Transformer(nn.Module):
    """Token embedding and blocks; exists because nanochat names its weights so."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))


class GPT(nn.Module):
    """A nanochat V1 model; its `state_dict` has the names of nanochat's files."""

    rotary: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.register_buffer("rotary", rotary_table(config), persistent=False)

    def forward(self, ids: Tensor, context: Context) -> Tensor:
        """Hidden states [B, T, C] of token ids [B, T], ready for `logits`."""
        rotation = self.rotary[:, context.positions].unsqueeze(-2)
        x: Tensor = rms_norm(self.transformer.wte(ids))
        for block in self.transformer.h:
            x = block(x, rotation, context)
        return rms_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float logits [..., vocab_size] of just the hidden states [..., C] asked for."""
        raw: Tensor = self.lm_head(hidden)
        return LOGIT_CAP * torch.tanh(raw.float() / LOGIT_CAP)

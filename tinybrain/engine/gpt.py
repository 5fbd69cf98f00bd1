"""The transformer of a nanochat checkpoint: token ids in, hidden states and logits out.

Knows nothing of caches, requests or text: attention over earlier positions is the business of
the `Context` it is called with. Numerics follow karpathy/nanochat; all its variants have the
rotary embedding before the norm on queries and keys, rotating by -theta; norms without weights;
squared ReLU; capped logits. How they differ, `variants.py` says. This is the plain definition that
faster paths are tested against.
"""

import re
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinybrain.engine.attention import Context
from tinybrain.engine.perplexity import negative_log_likelihoods
from tinybrain.engine.variants import Variant

RMS_EPS = 1.1920929e-07  # what F.rms_norm(eps=None) uses for fp32, bf16 and fp16 alike
SMEAR_CHANNELS = 24
WINDOWS = re.compile("[SL]{1,1000}")


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """The fields of `model_config` in a nanochat meta file.

    `window_pattern` has a letter for each layer, repeated as often as needed: S looks back over a
    short window, L over the whole context. The last layer always is an L.

    Raises:
        ValueError: A size is no positive integer, the pattern is none, or the fields do not fit
            each other.
    """

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    window_pattern: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self)[:-1]:
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} is {value!r}, not a positive integer")
        pattern = self.window_pattern
        if pattern is not None and (not isinstance(pattern, str) or not WINDOWS.fullmatch(pattern)):
            raise ValueError(f"window_pattern is {pattern!r}, not a text of S and L")
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


def has_value_embedding(layer: int, layers: int) -> bool:
    """Every second layer has one, the last among them."""
    return layer % 2 == (layers - 1) % 2


def window_of(config: GPTConfig, variant: Variant, layer: int) -> int | None:
    """How many tokens back a layer looks; None: to the first."""
    pattern = config.window_pattern or "L"
    is_short = pattern[layer % len(pattern)] == "S" and layer < config.n_layer - 1
    return variant.short_window(config.sequence_len) if is_short else None


def rotary_table(config: GPTConfig, variant: Variant) -> Tensor:
    """Cosines and sines [2, sequence_len, head_dim / 2], fp32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
    frequencies = variant.rope_base ** (-exponents / config.head_dim)
    angles = torch.outer(torch.arange(config.sequence_len, device="cpu").float(), frequencies)
    table = torch.stack([angles.cos(), angles.sin()])
    return table.bfloat16().float() if variant.rope_rounded else table


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the halves of heads x [B, T, H, D] by -theta; rotation [2, B, T, 1, D / 2]."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


class Attention(nn.Module):
    """Self-attention with rotary positions and normed queries and keys."""

    def __init__(self, config: GPTConfig, variant: Variant, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self._variant = variant
        self._window = window_of(config, variant, layer)
        if variant.value_gate and has_value_embedding(layer, config.n_layer):
            self.ve_gate = nn.Linear(variant.value_gate, config.n_kv_head, bias=False)
        kv_width = config.n_kv_head * config.head_dim
        self.c_q = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.c_k = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_v = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(
        self, x: Tensor, rotation: Tensor, context: Context, embedded: Tensor | None
    ) -> Tensor:
        """Map x [B, T, C] to [B, T, C]; `embedded` [B, T, Hkv * D] are value embeddings."""
        q, k, v = (
            linear(x).unflatten(-1, (-1, self.head_dim))
            for linear in (self.c_q, self.c_k, self.c_v)
        )
        if embedded is not None:
            gate = self._variant.value_gate_scale * torch.sigmoid(
                self.ve_gate(x[..., : self._variant.value_gate])
            )
            v = v + gate.unsqueeze(-1) * embedded.view_as(v)
        q, k = rms_norm(rotate(q, rotation)), rms_norm(rotate(k, rotation))
        if (scale := self._variant.qk_scale) != 1:
            q, k = q * scale, k * scale
        attended = context.attend(self.layer, q, k, v, window=self._window)
        y: Tensor = self.c_proj(attended.flatten(-2))
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

    def __init__(self, config: GPTConfig, variant: Variant, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, variant, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, rotation: Tensor, context: Context, embedded: Tensor | None
    ) -> Tensor:
        """Map x [B, T, C] to [B, T, C]; see Attention."""
        x = x + self.attn(rms_norm(x), rotation, context, embedded)
        y: Tensor = x + self.mlp(rms_norm(x))
        return y


def embedding(count: int, width: int) -> nn.Embedding:
    """One with any weights: drawing them on the meta device imports torch's compiler, a second."""
    return nn.Embedding(count, width, _weight=torch.empty(count, width))


class Transformer(nn.Module):
    """Token embedding and blocks; exists because nanochat names its weights so."""

    def __init__(self, config: GPTConfig, variant: Variant) -> None:
        super().__init__()
        self.wte = embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList(Block(config, variant, layer) for layer in range(config.n_layer))


class GPT(nn.Module):
    """A nanochat model; its `state_dict` has the names of nanochat's files."""

    rotary: Tensor

    def __init__(self, config: GPTConfig, variant: Variant) -> None:
        super().__init__()
        self.config = config
        self.variant = variant
        self.transformer = Transformer(config, variant)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.register_buffer("rotary", rotary_table(config, variant), persistent=False)
        if variant.residual_scales:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        with_values = range(config.n_layer) if variant.value_gate else ()
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): embedding(config.vocab_size, config.n_kv_head * config.head_dim)
                for layer in with_values
                if has_value_embedding(layer, config.n_layer)
            }
        )
        if variant.smear:
            self.smear_gate = nn.Linear(SMEAR_CHANNELS, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
            self.backout_lambda = nn.Parameter(torch.zeros(1))

    @property
    def device(self) -> torch.device:
        """Where it takes ids."""
        return self.lm_head.weight.device

    @property
    def precision(self) -> str:
        """The type it computes in."""
        return str(self.kv_dtype).removeprefix("torch.")

    @property
    def kv_dtype(self) -> torch.dtype:
        """Keys and values are cached in the type it computes in."""
        return self.lm_head.weight.dtype

    @property
    def any_chunks(self) -> bool:
        """Torch rounds products of different shapes differently."""
        return False

    def __call__(self, ids: Tensor, context: Context) -> Tensor:
        """See `forward`; says what nn.Module leaves open."""
        hidden: Tensor = super().__call__(ids, context)
        return hidden

    def forward(self, ids: Tensor, context: Context) -> Tensor:
        """Hidden states [B, T, C] of token ids [B, T], ready for `logits`."""
        rotation = self.rotary[:, context.positions].unsqueeze(-2)
        x = self._embed(ids, context)
        first = middle = x
        for layer, block in enumerate(self.transformer.h):
            if self.variant.residual_scales:
                x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * first
            values = self.value_embeds[str(layer)](ids) if str(layer) in self.value_embeds else None
            x = block(x, rotation, context, values)
            if layer == self.config.n_layer // 2:
                middle = x
        if self.variant.smear:
            x = x - self.backout_lambda * middle
        return rms_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float logits [..., vocab_size] of just the hidden states [..., C] asked for."""
        raw: Tensor = self.lm_head(hidden)
        cap = self.variant.logit_cap
        return cap * torch.tanh(raw.float() / cap)

    def nll(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Negative log-likelihoods [N] of ids [N], in nats, each after its hidden state [N, C]."""
        return negative_log_likelihoods(self.logits, hidden, ids)

    def _embed(self, ids: Tensor, context: Context) -> Tensor:
        x = rms_norm(self.transformer.wte(ids))
        if not self.variant.smear:
            return x
        # The token before is looked up anew: cheaper than keeping its embedding with every cache.
        before = rms_norm(self.transformer.wte(context.before))
        gate = self.smear_lambda * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS]))
        return x + gate * before * (context.positions > 0).unsqueeze(-1)


def count_parameters(config: GPTConfig, variant: Variant) -> int:
    """How many numbers a model of that size has learned."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config, variant).parameters())

"""What the engine runs: token ids in, hidden states and logits out."""

from typing import Protocol

import torch
from torch import Tensor

from tinybrain.engine.attention import Context
from tinybrain.engine.gpt import GPTConfig
from tinybrain.engine.variants import Variant


class Model(Protocol):
    """A nanochat model: the reference (`gpt.py`) or the fast one (`fast_gpt.py`)."""

    config: GPTConfig
    variant: Variant

    @property
    def device(self) -> torch.device:
        """Where it takes ids."""
        ...

    @property
    def precision(self) -> str:
        """What its linear layers compute with, for people."""
        ...

    @property
    def kv_dtype(self) -> torch.dtype:
        """What it wants keys and values cached in."""
        ...

    @property
    def any_chunks(self) -> bool:
        """Whether not a bit depends on how a prompt is cut into chunks."""
        ...

    def __call__(self, ids: Tensor, context: Context) -> Tensor:
        """Hidden states [B, T, C] of token ids [B, T]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Float logits [N, vocab_size] of hidden states [N, C]."""
        ...

    def nll(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Negative log-likelihoods [N] of ids [N], in nats, each after its hidden state [N, C]."""
        ...

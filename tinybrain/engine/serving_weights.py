"""A checkpoint's weights the way a FastGPT wants them: joined, reordered, in the kernels' types.

They come in groups, each layer's and the rest, so that never more than a few are in memory twice,
and from the checkpoint or from files that an earlier start has kept (`packed_files.py`).
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from tinybrain.engine.checkpoint import Checkpoint
from tinybrain.engine.gpt import GPTConfig, has_value_embedding
from tinybrain.engine.kernels import Kind
from tinybrain.engine.variants import Variant

Group = Mapping[str, tuple[Tensor, ...]]
SMALL = ("resid_lambdas", "x0_lambdas", "smear_lambda", "backout_lambda")


class ServingWeights(Protocol):
    """Where a FastGPT's weights come from."""

    config: GPTConfig
    variant: Variant

    def group(self, layer: int | None) -> Group:
        """One layer's weights, or with None what belongs to no layer.

        A layer has "qkv", "attended", "up" and "down", some have "value_embedding" and
        "value_gate"; beside them there are "embedding", "head" and what a variant adds.
        """
        ...


class FromCheckpoint:
    """Prepares the weights anew."""

    def __init__(self, checkpoint: Checkpoint, kind: Kind) -> None:
        self.config, self.variant = checkpoint.config, checkpoint.variant
        self._weights = checkpoint.weights
        self._prepare = kind.prepare

    def group(self, layer: int | None) -> Group:
        """See `ServingWeights`."""
        return self._rest() if layer is None else self._layer(layer)

    def _layer(self, layer: int) -> Group:
        home = f"transformer.h.{layer}."
        queries, keys, values = (self._weights[f"{home}attn.c_{name}.weight"] for name in "qkv")
        width = self.config.head_dim
        group = {
            "qkv": self._prepare(torch.cat([_pairs(queries, width), _pairs(keys, width), values])),
            "attended": self._prepare(self._weights[f"{home}attn.c_proj.weight"]),
            "up": self._prepare(self._weights[f"{home}mlp.c_fc.weight"]),
            "down": self._prepare(self._weights[f"{home}mlp.c_proj.weight"]),
        }
        if self.variant.value_gate and has_value_embedding(layer, self.config.n_layer):
            group["value_embedding"] = (_in_16_bits(self._weights[f"value_embeds.{layer}.weight"]),)
            group["value_gate"] = (self._weights[f"{home}attn.ve_gate.weight"].float(),)
        return group

    def _rest(self) -> Group:
        group = {
            "embedding": (_in_16_bits(self._weights["transformer.wte.weight"]),),
            "head": self._prepare(self._weights["lm_head.weight"]),
        }
        for name in SMALL:
            if name in self._weights:
                group[name] = (self._weights[name].float(),)
        if self.variant.smear:
            group["smear_gate"] = (self._weights["smear_gate.weight"].float(),)
        return group


def _in_16_bits(embedding: Tensor) -> Tensor:
    # nanochat's GPU runs save embeddings in bf16; of fp32 ones, fp16 keeps more.
    return embedding if embedding.dtype.itemsize <= 2 else embedding.half()  # noqa: PLR2004  # bytes


def _pairs(weight: Tensor, width: int) -> Tensor:
    """Put the two halves of each head's rows in turns, so that what rotates together is adjacent.

    Products of queries with keys, and their norms, do not depend on the order.
    """
    return weight.view(-1, 2, width // 2, weight.shape[-1]).transpose(1, 2).reshape_as(weight)

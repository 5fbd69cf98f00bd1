"""A random nanochat checkpoint (V1) of any depth, as nanochat's GPU runs save one.

Speed does not depend on what a model has learned, and no trained d20 can be shipped.
"""

import json
from pathlib import Path

import torch

from tinybrain.engine.gpt import GPT, GPTConfig
from tinybrain.engine.tokenizer_file import (
    SPECIAL_TOKENS,
    SPLIT_PATTERNS,
    TokenizerTable,
    write_tokenizer,
)
from tinybrain.engine.variants import V1

VOCABULARY = 65_536
CONTEXT = 2048
HEAD = 128


def write_checkpoint(home: Path, *, depth: int, seed: int = 0) -> None:
    """Write model_000001.pt, with the embedding in bf16, meta_000001.json and tokenizer.json."""
    width = 64 * depth
    heads = -(-width // HEAD)
    sizes = {
        "sequence_len": CONTEXT,
        "vocab_size": VOCABULARY,
        "n_layer": depth,
        "n_head": heads,
        "n_kv_head": heads,
        "n_embd": width,
    }
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in GPT(GPTConfig(**sizes), V1).state_dict().items()}
    weights = {
        name: torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5)
        for name, shape in shapes.items()
    }
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"].bfloat16()
    home.mkdir(parents=True, exist_ok=True)
    torch.save(weights, home / "model_000001.pt")
    (home / "meta_000001.json").write_text(json.dumps({"model_config": sizes}))
    write_tokenizer(_tokenizer(), home / "tokenizer.json")


def _tokenizer() -> TokenizerTable:
    size = VOCABULARY - len(SPECIAL_TOKENS)
    tokens = [bytes([i]) if i < 256 else bytes([i // 256, i % 256]) for i in range(size)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    special = {name: size + i for i, name in enumerate(SPECIAL_TOKENS)}
    return TokenizerTable(min(SPLIT_PATTERNS), ranks, special)
